/**
 * DeepSeek's expert-parallel load balancer (deepseek-ai/EPLB `eplb.py`): replicates busy experts and packs all of them
 * onto GPUs. It is greedy, and it is deterministic but for the order of equal loads. Here equals go by ascending index.
 *
 *     experts ─ groups packed onto nodes ─▶ packed order ─ replicas within a node ─▶ slots ─ packed onto GPUs ─▶ map
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { replicaCounts } from './placement.ts';

/** P slots on G GPUs of n nodes; experts in q groups. */
export type EplbShape = Readonly<{ numReplicas: number; numGroups: number; numNodes: number; numGpus: number }>;

/** One array a layer. */
export type EplbMaps = Readonly<{
  /** Expert of each slot. */
  physicalToLogical: readonly Int32Array[];
  /** Slots of each expert, its first replica first. */
  logicalToPhysical: readonly (readonly (readonly number[])[])[];
  logicalCount: readonly Int32Array[];
}>;

/** DeepSeek's divides and sums in f32, vLLM's policy in f64. */
export type EplbPrecision = 'f32' | 'f64';

/**
 * Places experts for the loads `weight[l][e]`. With `numGroups` a multiple of `numNodes` the experts of a group stay on
 * one node; otherwise groups and nodes are not looked at.
 *
 * @throws BAD_VALUE for a shape that does not divide, too few slots, or loads that are no numbers
 */
export function eplb(
  weight: readonly ArrayLike<number>[],
  shape: EplbShape,
  precision: EplbPrecision = 'f32',
): EplbMaps {
  const numExperts = weight[0]?.length ?? 0;
  checkEplb(weight, numExperts, shape);
  const round = precision === 'f32' ? Math.fround : same;
  const isHierarchical = shape.numGroups % shape.numNodes === 0;
  const used = isHierarchical ? shape : { ...shape, numGroups: 1, numNodes: 1 };
  const placed = weight.map((loads) => placeLayer(Float64Array.from(Float32Array.from(loads)), used, round));
  return {
    physicalToLogical: placed.map(({ slots }) => slots),
    logicalToPhysical: placed.map(({ slots, ranks }) => slotsOfExperts(slots, ranks, numExperts)),
    logicalCount: placed.map(({ slots }) => replicaCounts(slots, numExperts)),
  };
}

type Round = (value: number) => number;
const same: Round = (value) => value;

type PlacedLayer = Readonly<{
  slots: Int32Array;
  /** Which replica of its expert a slot holds, from 0. */
  ranks: Int32Array;
}>;

function placeLayer(
  loads: Float64Array,
  { numReplicas, numGroups, numNodes, numGpus }: EplbShape,
  round: Round,
): PlacedLayer {
  const groupSize = loads.length / numGroups;
  const perNode = loads.length / numNodes;
  const slotsPerNode = numReplicas / numNodes;
  const packed = packedExperts(loads, groupSize, numNodes, round);
  const slots = new Int32Array(numReplicas);
  const ranks = new Int32Array(numReplicas);
  for (let node = 0; node < numNodes; node++) {
    const experts = packed.subarray(node * perNode, (node + 1) * perNode);
    const { chosen, rank, load } = replicate(experts, loads, slotsPerNode, round);
    const { binOf, rankInBin } = pack(load, numGpus / numNodes, round);
    for (let i = 0; i < slotsPerNode; i++) {
      const slot = node * slotsPerNode + binOf[i]! * (numReplicas / numGpus) + rankInBin[i]!;
      slots[slot] = chosen[i]!;
      ranks[slot] = rank[i]!;
    }
  }
  return { slots, ranks };
}

/** Experts in the order of their nodes: groups packed onto nodes by load. */
function packedExperts(loads: Float64Array, groupSize: number, numNodes: number, round: Round): Int32Array {
  const numGroups = loads.length / groupSize;
  const groupLoads = Float64Array.from({ length: numGroups }, (_, group) => {
    let total = 0;
    for (let i = 0; i < groupSize; i++) total = round(total + loads[group * groupSize + i]!);
    return total;
  });
  const { binOf, rankInBin } = pack(groupLoads, numNodes, round);
  const packed = new Int32Array(loads.length);
  for (let group = 0; group < numGroups; group++) {
    const place = (binOf[group]! * (numGroups / numNodes) + rankInBin[group]!) * groupSize;
    for (let i = 0; i < groupSize; i++) packed[place + i] = group * groupSize + i;
  }
  return packed;
}

/** A slot for each expert, then each further one for the greatest load per replica; the first of equals. */
function replicate(
  experts: Int32Array,
  loads: Float64Array,
  numSlots: number,
  round: Round,
): Readonly<{ chosen: Int32Array; rank: Int32Array; load: Float64Array }> {
  const perReplica = Float64Array.from(experts, (expert) => loads[expert]!);
  const replicas = new Int32Array(experts.length).fill(1);
  const chosenAt = new Int32Array(numSlots);
  const rank = new Int32Array(numSlots);
  for (let slot = 0; slot < numSlots; slot++) {
    let most = slot;
    if (slot >= experts.length) {
      most = 0;
      for (let i = 1; i < experts.length; i++) if (perReplica[i]! > perReplica[most]!) most = i;
      rank[slot] = replicas[most]!++;
      perReplica[most] = round(loads[experts[most]!]! / replicas[most]!);
    }
    chosenAt[slot] = most;
  }
  return {
    chosen: chosenAt.map((i) => experts[i]!),
    rank,
    load: Float64Array.from(chosenAt, (i) => perReplica[i]!),
  };
}

type Packing = Readonly<{ binOf: Int32Array; rankInBin: Int32Array }>;

/** By load, descending, each item to the lightest bin that has room; the first of equals. One item a bin: unsorted. */
function pack(loads: Float64Array, numBins: number, round: Round): Packing {
  const perBin = loads.length / numBins;
  const binOf = new Int32Array(loads.length);
  const rankInBin = new Int32Array(loads.length);
  if (perBin === 1) return { binOf: binOf.map((_, i) => i), rankInBin };
  const order = Int32Array.from(loads, (_, i) => i).sort((a, b) => loads[b]! - loads[a]! || a - b);
  const binLoads = new Float64Array(numBins);
  const items = new Int32Array(numBins);
  for (const item of order) {
    let lightest = -1;
    for (let bin = 0; bin < numBins; bin++) {
      if (perBin === items[bin]) continue;
      if (lightest < 0 || binLoads[bin]! < binLoads[lightest]!) lightest = bin;
    }
    binOf[item] = lightest;
    rankInBin[item] = items[lightest]!++;
    binLoads[lightest] = round(binLoads[lightest]! + loads[item]!);
  }
  return { binOf, rankInBin };
}

function slotsOfExperts(slots: Int32Array, ranks: Int32Array, numExperts: number): number[][] {
  const slotsOf: number[][] = Array.from({ length: numExperts }, () => []);
  slots.forEach((expert, slot) => (slotsOf[expert]![ranks[slot]!] = slot));
  return slotsOf;
}

function bad(name: string, value: unknown, wanted: string): never {
  throw RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
}

function checkEplb(weight: readonly ArrayLike<number>[], numExperts: number, shape: EplbShape): void {
  const { numReplicas, numGroups, numNodes, numGpus } = shape;
  if (numExperts === 0) bad('weight', `${weight.length} layers of 0 experts`, 'at least one layer of one expert');
  for (const [l, loads] of weight.entries()) {
    if (loads.length !== numExperts) bad(`weight[${l}]`, `${loads.length} loads`, `${numExperts}, as in layer 0`);
    const wrong = Array.from(loads).findIndex((load) => !Number.isFinite(load) || load < 0);
    if (wrong >= 0) bad(`weight[${l}][${wrong}]`, loads[wrong], 'a number ≥ 0');
  }
  for (const [name, value] of Object.entries({ numReplicas, numGroups, numNodes, numGpus })) {
    if (!Number.isSafeInteger(value) || value < 1) bad(name, value, 'a whole number ≥ 1');
  }
  if (numReplicas < numExperts) bad('numReplicas', numReplicas, `at least ${numExperts}, a slot for each expert`);
  if (numReplicas % numGpus !== 0) bad('numReplicas', numReplicas, `a multiple of the ${numGpus} GPUs`);
  if (numGpus % numNodes !== 0) bad('numGpus', numGpus, `a multiple of the ${numNodes} nodes`);
  if (numExperts % numGroups !== 0) bad('numGroups', numGroups, `a divisor of the ${numExperts} experts`);
}
