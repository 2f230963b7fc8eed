// The class list of PixelDiT Class Label follows the connected checkpoint, in subgraphs and promoted widgets, too.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { holdersOf, isRelay, placesIn, sourceOf, widget } from "./graph.js";

const LABEL = "PixelDiTClassLabel";
const LOADER = "PixelDiTLoader";
const lists = new Map(); // checkpoint name -> promise of its class names

function classesOf(checkpoint) {
  if (!lists.has(checkpoint)) {
    const address = `/pixeldit/classes?checkpoint=${encodeURIComponent(checkpoint)}`;
    const answer = api.fetchApi(address).then((response) => (response.ok ? response.json() : []));
    lists.set(checkpoint, answer.catch(() => []));
  }
  return lists.get(checkpoint);
}

// The loader that a node's model comes from; LoRA and patch nodes, reroutes and subgraphs may be in between.
function loaderOf(place) {
  for (let hops = 0; place && hops < 50; hops++) {
    const { node } = place;
    if (node.comfyClass === LOADER) return place;
    const slot = isRelay(node) ? 0 : node.inputs?.findIndex((input) => input.type === "MODEL") ?? -1;
    place = slot < 0 ? null : sourceOf(place, slot);
  }
  return null;
}

function offer(node, list, classes) {
  list.options.values = classes;
  const index = node.widgets.indexOf(list);
  if (window.LiteGraph?.vueNodesMode && index >= 0) {
    // Nodes 2.0 look at the options of a widget when the list of widgets changes, not when they do
    node.widgets.splice(index, 1);
    node.widgets.splice(index, 0, list);
  }
  node.setDirtyCanvas?.(true, true);
}

async function refresh(place) {
  const loader = loaderOf(place);
  const given = loader && holdersOf(loader, "checkpoint").at(-1).widget;
  if (!given?.value) return;
  watch(given);
  const classes = await classesOf(given.value);
  if (!classes.length) return;
  const holders = holdersOf(place, "class_name").filter((holder) => holder.widget);
  for (const { node, widget: list } of holders) {
    if (list.options.values !== classes) offer(node, list, classes);
  }
  // a class of another checkpoint is replaced by the one with the same number, if it exists
  const list = holders.at(-1)?.widget;
  if (list && !classes.includes(list.value)) list.value = classes[parseInt(list.value, 10)] ?? classes[0];
}

function refreshAll() {
  for (const place of placesIn()) {
    if (place.node.comfyClass === LABEL) refresh(place);
  }
}

let waiting = null;
function refreshSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(refreshAll, 50);
}

function after(object, name, action) {
  const before = object[name];
  object[name] = function (...rest) {
    const result = before?.apply(this, rest);
    action.apply(this, rest);
    return result;
  };
}

const watched = new WeakSet(); // widgets
function watch(given) {
  if (!watched.has(given)) after(given, "callback", refreshSoon);
  watched.add(given);
}

const extension = {
  name: "pixeldit.classes",
  setup() {
    api.addEventListener("graphChanged", refreshSoon); // what no callback tells, as subgraphs
  },
  nodeCreated(node) {
    const loads = node.comfyClass === LOADER;
    if (loads || node.inputs?.some((input) => input.type === "MODEL")) after(node, "onConnectionsChange", refreshSoon);
    if (loads && widget(node, "checkpoint")) watch(widget(node, "checkpoint"));
  },
  afterConfigureGraph() {
    refreshSoon();
  },
  refreshComboInNodes() {
    lists.clear();
    refreshAll();
  },
};

// a second copy of the pack brings this file again
if (!app.extensions?.some((other) => other.name === extension.name)) app.registerExtension(extension);
