// The list of PixelDiT Class Label, with the loader and the label in and out of subgraphs.
const { load } = require('./page.js');

const EMOJI = 'pixeldit-emoji-96.safetensors', DIGITS = 'xpred-digits-28.safetensors';

// In the page: find nodes at any depth, put one into a subgraph, promote a widget of it.
const HELPERS = () => {
  const all = (graph) => graph._nodes.flatMap((node) => [node, ...(node.subgraph ? all(node.subgraph) : [])]);
  const find = (type) => all(window.rootOf()).find((node) => node.type === type);
  const widgetOf = (node, name) => node.widgets.find((widget) => widget.name === name);
  const around = (node) => all(window.rootOf()).find((outer) => outer.subgraph && outer.subgraph === node.graph);
  window.helpers = {
    around,
    find,
    widgetOf,
    wrap: (node) => node.graph.convertToSubgraph(new Set([node])).node,
    promote(name, node, inner = name) {
      const slot = node.inputs.find((input) => input.widget?.name === inner);
      node.graph.addInput(name, slot.type).connect(slot, node);
    },
    choose(node, name, value) {
      const widget = widgetOf(node, name);
      widget.value = value;
      widget.callback?.(value);
    },
  };
};

// The list at the outermost place that has it; in Nodes 2.0 also what the open list really offers.
async function look(page) {
  await page.waitForTimeout(700);
  const found = await page.evaluate(() => {
    const { around, find, widgetOf } = window.helpers;
    let node = find('PixelDiTClassLabel');
    for (let outer = node; outer; outer = around(outer)) if (outer.widgets?.some((w) => w.name === 'class_name')) node = outer;
    const list = widgetOf(node, 'class_name');
    const shown = window.LiteGraph.vueNodesMode && node.graph === window.rootOf() ? String(node.id) : null;
    return { value: list.value, count: list.options.values.length, last: list.options.values.at(-1), shown };
  });
  const { shown, ...list } = found;
  if (shown) {
    const options = await offered(page, shown);
    if (options) Object.assign(list, { offered: [options[0], options.at(-1)] });
  }
  return list;
}

async function offered(page, id) {
  const combo = page.locator(`[data-node-id="${id}"] [role=combobox]`).first();
  if (!(await combo.count())) return null;
  await combo.click();
  await page.waitForTimeout(500);
  const options = await page.evaluate(() => [...document.querySelectorAll('[role=option]')].map((e) => e.textContent.trim()));
  await page.keyboard.press('Escape');
  return options;
}

async function lists(page, template) {
  const found = {};
  const act = (action, ...values) => page.evaluate(action, values);
  const choose = (checkpoint) => act(([name]) => window.helpers.choose(window.helpers.find('PixelDiTLoader'), 'checkpoint', name), checkpoint);
  const chooseOutside = (checkpoint) => act(([name]) => window.helpers.choose(window.rootOf()._nodes.find((node) => node.subgraph), 'checkpoint', name), checkpoint);
  const again = async (name) => {
    await page.evaluate(async () => { await window.app.refreshComboInNodes(); });
    found[`${name}, R`] = await look(page);
    const graph = await page.evaluate(() => JSON.parse(JSON.stringify(window.rootOf().serialize())));
    await load(page, graph);
    found[`${name}, loaded again`] = await look(page);
  };
  const start = async () => {
    await load(page, await template());
    await page.evaluate(HELPERS);
  };
  const wrap = (type) => act(([name]) => { window.helpers.wrap(window.helpers.find(name)); }, type);

  await start();
  found.plain = await look(page);
  await choose(DIGITS);
  found['plain, digits'] = await look(page);
  await again('plain, digits');

  await start();
  await wrap('PixelDiTLoader');
  await choose(DIGITS);
  found['loader inside, digits'] = await look(page);
  await again('loader inside, digits');
  await act(() => { window.helpers.promote('checkpoint', window.helpers.find('PixelDiTLoader')); });
  await chooseOutside(EMOJI);
  found['loader promoted, emoji'] = await look(page);
  await again('loader promoted, emoji');

  await start();
  await wrap('PixelDiTClassLabel');
  await choose(DIGITS);
  found['label inside, digits'] = await look(page);
  await act(() => { window.helpers.promote('class_name', window.helpers.find('PixelDiTClassLabel')); });
  found['label promoted, digits'] = await look(page);
  await choose(EMOJI);
  found['label promoted, emoji'] = await look(page);
  await choose(DIGITS);
  await again('label promoted, digits');

  // two deep, and each in a subgraph of its own
  await act(() => {
    const { around, find, promote, wrap } = window.helpers;
    const outer = wrap(around(find('PixelDiTClassLabel')));
    promote('class_name', outer.subgraph._nodes.find((node) => node.subgraph));
  });
  await wrap('PixelDiTLoader');
  await choose(EMOJI);
  found['label two deep, loader inside, emoji'] = await look(page);
  await choose(DIGITS);
  await again('label two deep, loader inside, digits');
  return found;
}

module.exports = { HELPERS, lists };
