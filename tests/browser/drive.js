// Drives ComfyUI's real page and prints one JSON line of what it has seen there.
//   node drive.js URL PACK OUT TASK       TASK: JSON, {"kind": ..., ...}, see TASKS
// Needs playwright-core (NODE_PATH) and a Chromium (CHROMIUM). Screenshots go to OUT.
const { fit, getJson, load, nodes, open, ready, run } = require('./page.js');
const { lists } = require('./lists.js');

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
    return { titles, workflow, prompt, reloaded: await nodes(page) };
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
