// The class list of PixelDiT Class Label follows the connected checkpoint.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

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

// The loader that a node's model comes from; LoRA and patch nodes may be in between.
function loaderOf(node) {
  for (let hops = 0; node && hops < 50; hops++) {
    if (node.comfyClass === LOADER) return node;
    const slot = node.inputs?.findIndex((input) => input.type === "MODEL") ?? -1;
    node = slot < 0 ? null : node.getInputNode(slot);
  }
  return null;
}

const widget = (node, name) => node.widgets?.find((entry) => entry.name === name);

async function refresh(node) {
  const list = widget(node, "class_name");
  const checkpoint = widget(loaderOf(node) ?? {}, "checkpoint")?.value;
  if (!list || !checkpoint) return;
  const classes = await classesOf(checkpoint);
  if (!classes.length) return;
  list.options.values = classes;
  // a class of another checkpoint is replaced by the one with the same number, if it exists
  if (!classes.includes(list.value)) {
    const number = parseInt(list.value, 10);
    list.value = classes[number] ?? classes[0];
  }
  node.setDirtyCanvas?.(true, true);
}

const refreshAll = () => app.graph?._nodes?.filter((node) => node.comfyClass === LABEL).forEach(refresh);

function after(object, name, action) {
  const before = object[name];
  object[name] = function (...rest) {
    const result = before?.apply(this, rest);
    action.apply(this, rest);
    return result;
  };
}

const extension = {
  name: "pixeldit.classes",
  nodeCreated(node) {
    if (node.comfyClass === LABEL) {
      after(node, "onConnectionsChange", () => setTimeout(() => refresh(node)));
    }
    const checkpoint = node.comfyClass === LOADER && widget(node, "checkpoint");
    if (checkpoint) after(checkpoint, "callback", () => setTimeout(refreshAll));
  },
  afterConfigureGraph() {
    setTimeout(refreshAll);
  },
  refreshComboInNodes() {
    lists.clear();
    refreshAll();
  },
};

// a second copy of the pack brings this file again
if (!app.extensions?.some((other) => other.name === extension.name)) app.registerExtension(extension);
