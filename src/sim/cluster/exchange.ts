/** What the experts' all-to-all sends from node to node. Within a node it is part of a pass's measured time. */

import type { ClusterOptions } from './cluster-options.ts';

/**
 * Bytes that an engine's ranks send to other nodes for a pass over `numTokens`, and get back: in each layer the hidden
 * state of each token goes to each of its experts elsewhere (`modular`), or to every other node (`naive`).
 */
export function exchangeBytes({ model, numNodes, dispatch, costs }: ClusterOptions, numTokens: number): number {
  const { numLayers, topK } = model;
  const copies = dispatch === 'modular' ? (topK * (numNodes - 1)) / numNodes : numNodes - 1;
  return Math.round(2 * numTokens * numLayers * copies * costs.hiddenBytes);
}

/** In µs: of a message, and of an engine's bytes over the NICs of its ranks. Each rank has one. */
export function exchangeUs(
  options: ClusterOptions,
  numTokens: number,
): Readonly<{ latency: number; transfer: number }> {
  const { numNodes, tensorParallel, costs } = options;
  if (numNodes === 1) return { latency: 0, transfer: 0 };
  const bytes = exchangeBytes(options, numTokens);
  return { latency: costs.nicLatencyUs, transfer: bytes / tensorParallel / (costs.nicGBPerS * 1e3) };
}
