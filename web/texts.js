// The text that a node shows: what it has loaded, the settings that it used. It comes with the UI output of the node,
// stays when the job ends, and is shown again after a reload. It is no part of the workflow or of the prompt.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { nodeOf, placesIn, rootGraph, widget } from "./graph.js";

const SHOWING = new Set([
  "PixelDiTLoader", "PixelDiTLoRA", "PixelDiTClassLabel", "PixelDiTTextPrompt", "PixelDiTSampler", "PixelDiTEncode",
  "PixelDiTSize", "PixelDiTSaveModel",
]);
const NAME = "pixeldit_text";
const LINE = 15, MARGIN = 5; // pixels
const FONT = "12px sans-serif";
const JOBS = 32; // of the history, to look for texts in

const texts = new Map(); // workflow id -> promise of a map: execution id -> { type, text }
const workflows = new Map(); // id of a job -> id of the workflow that was open when it began

const ruler = document.createElement("canvas").getContext("2d");

// Pages ask for the height before the text is drawn. Lines break at words: a tenth of each stays empty.
function heightOf(text, width) {
  ruler.font = FONT;
  const rows = (line) => Math.max(1, Math.ceil(ruler.measureText(line).width / (0.9 * Math.max(60, width - 30))));
  return text.split("\n").reduce((sum, line) => sum + rows(line), 0) * LINE + 2 * MARGIN;
}

function addText(node) {
  const element = document.createElement("div");
  Object.assign(element.style, {
    font: FONT, lineHeight: `${LINE}px`, color: "var(--descrip-text, #999)", whiteSpace: "pre-wrap",
    overflowWrap: "anywhere", overflow: "hidden", padding: "0 4px", boxSizing: "border-box", pointerEvents: "none",
  });
  const height = () => heightOf(element.textContent, node.size[0]);
  const added = node.addDOMWidget(NAME, NAME, element, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getValue: () => element.textContent,
    setValue: (text) => { element.textContent = text; },
    getMinHeight: height,
    getMaxHeight: height,
  });
  added.serialize = false; // not in the workflow
  return added;
}

function show(node, text) {
  const shown = widget(node, NAME);
  if (!text && !shown) return;
  if (text) {
    (shown ?? addText(node)).value = text;
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  } else {
    node.removeWidget(shown);
  }
  node.setDirtyCanvas(true, true);
}

// What the server still knows of a workflow, as an entry of `texts`; of one job, or of the last ones.
async function fromHistory(workflow, job = `?max_items=${JOBS}`) {
  const found = new Map();
  const response = await api.fetchApi(`/history${job}`);
  for (const { prompt, outputs } of Object.values(response.ok ? await response.json() : {})) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== workflow) continue;
    for (const [id, output] of Object.entries(outputs)) {
      const type = prompt[2][id]?.class_type;
      if (SHOWING.has(type)) found.set(id, { type, text: textOf(output) });
    }
  }
  return found;
}

const textOf = (output) => output?.text?.join?.("\n") ?? "";

function textsOf(workflow) {
  if (!texts.has(workflow)) texts.set(workflow, fromHistory(workflow).catch(() => new Map()));
  return texts.get(workflow);
}

async function restore() {
  const workflow = rootGraph().id;
  showAll(workflow, await textsOf(workflow));
}

// Older servers do not send again what nodes show whose results are cached.
async function ended({ detail }) {
  const workflow = rootGraph().id;
  const bare = ({ node }) => SHOWING.has(node.comfyClass) && !widget(node, NAME);
  if ((workflows.get(detail.prompt_id) ?? workflow) !== workflow || ![...placesIn()].some(bare)) return;
  const known = await textsOf(workflow);
  const found = await fromHistory(workflow, `/${detail.prompt_id}`).catch(() => new Map());
  for (const [id, entry] of found) known.set(id, entry);
  showAll(workflow, found);
}

function showAll(workflow, found) {
  if (rootGraph().id !== workflow) return; // another one was opened meanwhile
  for (const [id, { type, text }] of found) {
    const node = nodeOf(id);
    // the type is not known where the workflow was not open when its node ran
    if (SHOWING.has(node?.comfyClass) && [node.comfyClass, undefined].includes(type)) show(node, text);
  }
}

async function executed({ detail }) {
  if (!detail.output?.text) return;
  const open = rootGraph().id;
  const workflow = workflows.get(detail.prompt_id) ?? open;
  const id = String(detail.display_node ?? detail.node), text = textOf(detail.output);
  const node = workflow === open ? nodeOf(id) : null;
  if (node && !SHOWING.has(node.comfyClass)) return;
  if (node) show(node, text);
  (await textsOf(workflow)).set(id, { type: node?.comfyClass, text });
}

const extension = {
  name: "pixeldit.texts",
  setup() {
    api.addEventListener("execution_start", ({ detail }) => workflows.set(detail.prompt_id, rootGraph().id));
    api.addEventListener("executed", executed);
    api.addEventListener("execution_success", ended);
  },
  afterConfigureGraph() {
    restore();
  },
};

// a second copy of the pack brings this file again
if (!app.extensions?.some((other) => other.name === extension.name)) app.registerExtension(extension);
