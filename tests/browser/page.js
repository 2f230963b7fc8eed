// ComfyUI's real page in Chromium: what every task of drive.js needs.
const { chromium } = require('playwright-core');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

const getJson = async (address) => (await fetch(address)).json();

async function open(url, errors) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  page.on('pageerror', (error) => errors.push(String(error.stack || error).slice(0, 2000)));
  // the page's own server only: nothing here may depend on a network
  const own = new URL(url).origin;
  await page.route((asked) => asked.protocol.startsWith('http') && asked.origin !== own, (route) => route.abort());
  await page.goto(url);
  await ready(page);
  return { browser, page };
}

async function ready(page) {
  await page.waitForFunction(() => window.app && window.app.graph, null, { timeout: 90000 });
  await page.waitForTimeout(5000);
  await page.keyboard.press('Escape');
  await page.evaluate(() => { window.rootOf = () => window.app.rootGraph ?? window.app.graph; });
}

async function load(page, graph) {
  await page.evaluate(async (data) => { await window.app.loadGraphData(data); }, graph);
  await page.waitForTimeout(1000);
  await page.keyboard.press('Escape'); // a dialog on models that are not here
}

// Show the whole graph: pages draw only what is in view.
async function fit(page) {
  await page.evaluate(() => {
    const { ds, canvas } = window.app.canvas;
    const nodes = window.rootOf()._nodes;
    const [left, top] = [0, 1].map((side) => Math.min(...nodes.map((node) => node.pos[side])) - 60);
    const [right, bottom] = [0, 1].map((side) => Math.max(...nodes.map((node) => node.pos[side] + node.size[side])) + 60);
    const { width, height } = canvas.getBoundingClientRect();
    const side = 70, bars = 90; // pixels that the page's own bars cover
    ds.scale = Math.min(1, (width - side) / (right - left), (height - bars) / (bottom - top));
    ds.offset[0] = side / ds.scale - left;
    ds.offset[1] = bars / ds.scale - top;
    window.app.canvas.setDirty(true, true);
  });
  await page.waitForTimeout(700);
}

// Every node as the page has it; `box`: left, top, right and bottom, in the graph's units, with all that is drawn of it.
const nodes = (page) => page.evaluate(() => {
  const { scale, offset } = window.app.canvas.ds;
  const canvas = window.app.canvas.canvas.getBoundingClientRect();
  const boxOf = (node) => {
    const element = window.LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${node.id}"]`) : null;
    if (!element) return [node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]];
    const own = element.getBoundingClientRect();
    const bottom = Math.max(...[element, ...element.querySelectorAll('*')]
      .filter((part) => part.checkVisibility()).map((part) => part.getBoundingClientRect().bottom));
    return [(own.left - canvas.left) / scale - offset[0], (own.top - canvas.top) / scale - offset[1],
      (own.right - canvas.left) / scale - offset[0], (bottom - canvas.top) / scale - offset[1]];
  };
  return window.rootOf()._nodes.map((node) => {
    const text = node.widgets?.find((widget) => widget.name === 'pixeldit_text');
    return {
      id: String(node.id),
      type: node.type,
      missing: !window.LiteGraph.registered_node_types[node.type],
      widgets: Object.fromEntries((node.widgets ?? []).filter((widget) => widget !== text)
        .map((widget) => [widget.name, widget.value])),
      box: boxOf(node),
      text: text ? text.value : null,
      drawn: text ? text.element.getBoundingClientRect().height > 0 : null,
      cut: text ? text.element.scrollHeight > text.element.clientHeight + 1 : null,
    };
  });
});

// Queue the open workflow, and wait for the run.
async function run(page, url) {
  const before = await getJson(`${url}/history`);
  await page.evaluate(async () => { await window.app.queuePrompt(0, 1); });
  for (let tries = 0; tries < 480; tries++) {
    await page.waitForTimeout(500);
    const ended = Object.entries(await getJson(`${url}/history`)).find(([id, entry]) => !(id in before) && entry.status);
    if (!ended) continue;
    await page.waitForTimeout(1500);
    return { status: ended[1].status.status_str, outputs: ended[1].outputs, messages: ended[1].status.messages };
  }
  return { status: 'timeout' };
}

module.exports = { fit, getJson, load, nodes, open, ready, run };
