// Opens a bundled workflow in ComfyUI's real page, tells every widget, optionally runs it, takes screenshots.
//   node drive.js URL PACK TEMPLATE OUT run|open|labels
// Needs playwright-core (NODE_PATH) and a Chromium (CHROMIUM). Prints one JSON line.
const { chromium } = require('playwright-core');

const [url, pack, template, out, mode] = process.argv.slice(2);
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

const history = async () => (await fetch(`${url}/history`)).json();

// The first run that is not in `before` and has ended.
async function waitForQueue(page, before) {
  for (let second = 0; second < 240; second++) {
    await page.waitForTimeout(1000);
    const ended = Object.entries(await history()).find(([id, entry]) => !(id in before) && entry.status);
    const done = ended && ended[1];
    if (done) return { status: done.status.status_str, outputs: done.outputs, messages: done.status.messages };
  }
  return { status: 'timeout' };
}

// The list of PixelDiT Class Label follows the connected checkpoint.
async function classLists(page) {
  await page.waitForTimeout(1500);
  return page.evaluate(() => {
    const label = window.app.graph._nodes.find((node) => node.type === 'PixelDiTClassLabel');
    if (!label) return null;
    const list = label.widgets.find((widget) => widget.name === 'class_name');
    return { value: list.value, count: list.options.values.length, last: list.options.values.at(-1) };
  });
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: flags });
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error.stack || error).slice(0, 2000)));
  // the page's own server only: nothing here may depend on a network
  const own = new URL(url).origin;
  await page.route((asked) => asked.protocol.startsWith('http') && asked.origin !== own, (route) => route.abort());
  await page.goto(url);
  await page.waitForFunction(() => window.app && window.app.graph, null, { timeout: 90000 });
  await page.waitForTimeout(5000);
  await page.keyboard.press('Escape');
  const address = `${url}/api/workflow_templates/${encodeURIComponent(pack)}/${encodeURIComponent(template)}`;
  const workflow = await (await fetch(`${address}.json`)).json();
  const thumbnail = (await fetch(`${address}.jpg`)).status;
  await page.evaluate(async (graph) => { await window.app.loadGraphData(graph); }, workflow);
  await page.waitForTimeout(3000);
  const result = { thumbnail };
  result.nodes = await page.evaluate(() => window.app.graph._nodes.map((node) => ({
    type: node.type,
    missing: !window.LiteGraph.registered_node_types[node.type],
    widgets: Object.fromEntries((node.widgets || []).map((widget) => [widget.name, widget.value])),
  })));
  result.classes = await classLists(page);
  result.alerts = await page.evaluate(() => [...document.querySelectorAll('.p-toast-detail')].map((e) => e.textContent));
  await page.screenshot({ path: `${out}/opened.png` });
  if (mode === 'run') {
    const before = await history();
    await page.evaluate(async () => { await window.app.queuePrompt(0, 1); });
    result.run = await waitForQueue(page, before);
    await page.waitForTimeout(2500);
    await page.screenshot({ path: `${out}/ran.png` });
  }
  result.errors = errors;
  await browser.close();
  // connections that Node keeps open would hold the process for half a minute
  process.stdout.write(JSON.stringify(result) + '\n', () => process.exit(0));
})().catch((error) => { process.stderr.write(String(error.stack || error)); process.exit(1); });
