// Drives ComfyUI's real page and prints one JSON line of what it has seen there.
//   node drive.js URL PACK OUT TASK       TASK: JSON, {"kind": ..., ...}, see TASKS
// Needs playwright-core (NODE_PATH) and a Chromium (CHROMIUM). Screenshots go to OUT.
const { fit, getJson, load, nodes, open, ready, run } = require('./page.js');
const { HELPERS, lists } = require('./lists.js');

const [url, pack, out, given] = process.argv.slice(2);
const task = JSON.parse(given);
const template = (title) => `${url}/api/workflow_templates/${encodeURIComponent(pack)}/${encodeURIComponent(title)}`;

// What nodes would show after a run, for templates that need models which are not here.
const show = (page, texts) => page.evaluate((byType) => {
  for (const node of window.rootOf()._nodes) {
    const detail = { node: String(node.id), output: { text: [byType[node.type]] }, prompt_id: 'shown' };
    if (byType[node.type]) window.comfyAPI.api.api.dispatchEvent(new CustomEvent('executed', { detail }));
  }
}, texts);

// A label in a subgraph that shows a text, when it ran and when its workflow is opened again; a note that has gone.
async function inSubgraph(page) {
  await page.evaluate(HELPERS);
  const seen = () => page.evaluate(() => {
    const { find, widgetOf } = window.helpers;
    return ['PixelDiTClassLabel', 'PixelDiTSampler'].map((type) => widgetOf(find(type), 'pixeldit_text')?.value ?? null);
  });
  const ran = (id, text) => page.evaluate(([node, lines]) => {
    const detail = { node, output: { text: lines }, prompt_id: 'shown' };
    window.comfyAPI.api.api.dispatchEvent(new CustomEvent('executed', { detail }));
  }, [id, text]);
  const ids = await page.evaluate(() => {
    const { find, wrap } = window.helpers;
    const outer = wrap(find('PixelDiTClassLabel'));
    return [`${outer.id}:${find('PixelDiTClassLabel').id}`, String(find('PixelDiTSampler').id)];
  });
  await ran(ids[0], ['of a subgraph']);
  await ran(ids[1], []);
  const inside = await seen();
  await load(page, await page.evaluate(() => JSON.parse(JSON.stringify(window.rootOf().serialize()))));
  return { inside, again: await seen() };
}

const TASKS = {
  // Opens every template; runs those named in `runs`; shows `texts` (by type of node) on the others. Then reloads the
  // page, which opens the last one again: what nodes show, and that it is no part of the workflow or the prompt.
  async templates(page) {
    const titles = {};
    for (const title of task.titles) {
      await load(page, await getJson(`${template(title)}.json`));
      await fit(page);
      const seen = { thumbnail: (await fetch(`${template(title)}.jpg`)).status, nodes: await nodes(page) };
      seen.alerts = await page.evaluate(() => [...document.querySelectorAll('.p-toast-detail')].map((e) => e.textContent));
      if (task.runs.includes(title)) seen.run = await run(page, url);
      else await show(page, task.texts);
      await page.waitForTimeout(500);
      seen.after = await nodes(page);
      await page.screenshot({ path: `${out}/${title}.png` });
      titles[title] = seen;
    }
    const workflow = await page.evaluate(() => JSON.stringify(window.rootOf().serialize()));
    const prompt = await page.evaluate(async () => JSON.stringify((await window.app.graphToPrompt()).output));
    await page.reload();
    await ready(page);
    const reloaded = await nodes(page);
    const again = JSON.parse(workflow);
    again.id = crypto.randomUUID();
    await load(page, again);
    const bare = await nodes(page);
    await run(page, url);
    const cached = await nodes(page);
    return { titles, workflow, prompt, reloaded, bare, cached, ...(await inSubgraph(page)) };
  },

  lists: (page) => lists(page, () => getJson(`${template(task.title)}.json`)),
};

(async () => {
  const errors = [];
  const { browser, page } = await open(url, errors);
  const found = await TASKS[task.kind](page);
  await browser.close();
  // connections that Node keeps open would hold the process for half a minute
  process.stdout.write(JSON.stringify({ found, errors }) + '\n', () => process.exit(0));
})().catch((error) => { process.stderr.write(String(error.stack || error)); process.exit(1); });
