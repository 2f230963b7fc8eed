// Nodes, and where their inputs come from, through subgraphs and reroutes.
import { app } from "../../scripts/app.js";

const SUBGRAPH_INPUT = -10; // what a link inside of a subgraph comes from, where it enters from outside
const BYPASSED = 4;

export const rootGraph = () => app.rootGraph ?? app.graph;

export const widget = (node, name) => node?.widgets?.find((entry) => entry.name === name);

// Every node as { node, path }: `path` holds the subgraph nodes around it, the outermost first.
export function* placesIn(graph = rootGraph(), path = []) {
  for (const node of graph?._nodes ?? []) {
    yield { node, path };
    if (node.subgraph) yield* placesIn(node.subgraph, [...path, node]);
  }
}

// The node that an execution id of the server, such as "5:12", stands for.
export function nodeOf(executionId) {
  let graph = rootGraph(), node;
  for (const id of String(executionId).split(":")) {
    node = graph?._nodes.find((entry) => String(entry.id) === id);
    graph = node?.subgraph;
  }
  return node;
}

const linkOf = (graph, id) => (id == null ? null : graph.getLink?.(id) ?? graph.links.get?.(id) ?? graph.links[id]);

// The input of the subgraph node around `path` that a link from the subgraph's edge stands for: { node, path, slot }.
export function outside(graph, link, path) {
  const node = path.at(-1);
  if (!node) return null;
  const name = graph.inputs?.[link.origin_slot]?.name;
  const slot = node.inputs.findIndex((input) => input.name === name);
  return { node, path: path.slice(0, -1), slot: slot < 0 ? link.origin_slot : slot };
}

// Reroutes, and nodes such as Get that find their link by themselves; of a subgraph node, pages ask for other links so.
export const isRelay = (node) => Boolean(node.isVirtualNode && !node.subgraph);

const linkInto = (node, slot) =>
  isRelay(node) ? node.getInputLink(slot) : linkOf(node.graph, node.inputs?.[slot]?.link);

// The node whose output reaches an input, as { node, path }; null where nothing is connected.
export function sourceOf({ node, path }, slot) {
  const link = linkInto(node, slot);
  return link ? originOf(node.graph, link, path) : null;
}

function originOf(graph, link, path) {
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    const outer = outside(graph, link, path);
    return outer && sourceOf(outer, outer.slot);
  }
  const node = graph._nodes.find((entry) => String(entry.id) === String(link.origin_id));
  if (!node?.subgraph || node.mode === BYPASSED) return node ? { node, path } : null;
  const inner = linkOf(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds[0]);
  return inner ? originOf(node.subgraph, inner, [...path, node]) : null;
}

// The widgets that hold a value, the inner one first: one that is promoted is set on the subgraph node around it.
// As { node, path, widget }; the last one counts. `widget` is undefined where another node gives the value.
export function holdersOf({ node, path }, name) {
  const holders = [{ node, path, widget: widget(node, name) }];
  const slot = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1;
  const link = slot < 0 ? null : linkInto(node, slot);
  if (!link) return holders;
  const outer = Number(link.origin_id) === SUBGRAPH_INPUT ? outside(node.graph, link, path) : null;
  if (outer) return [...holders, ...holdersOf(outer, outer.node.inputs[outer.slot]?.widget?.name)];
  const from = originOf(node.graph, link, path);
  return [...holders, { ...from, widget: from?.node.widgets?.[0] }]; // a primitive or constant
}
