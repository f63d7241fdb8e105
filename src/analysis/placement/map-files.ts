/**
 * One placement in every text form that an engine reads. `layers` are the model's layer numbers; forms without them
 * begin at layer 0, or at the first line.
 */

import { parse } from 'yaml';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { JsonObject } from '../../rows/json-object.ts';
import { isObject } from '../../rows/json-object.ts';

export type ExpertMap = Readonly<{
  /** `null`: the form does not name them. */
  layers: readonly number[] | null;
  /** `[L][P]`: the expert of each slot. */
  physicalToLogical: readonly (readonly number[])[];
  /** `null`: the form does not say. */
  numGpus: number | null;
}>;

/**
 * `sglang`: `--init-expert-location`; a line for each layer of the model, dense ones too. `vllm`:
 * `initial_expert_map_path` (vllm#49572, open). `vllm-shared`: the same, one line for all layers. `vllm-ranks`: the GPU
 * of each expert, for all layers and without replicas (vllm#34811, open). `vllm-ascend`: `expert_map_path`.
 * `tensorrt-llm`: the YAML of its `moe_load_balancer`.
 */
export type MapForm = 'sglang' | 'vllm' | 'vllm-shared' | 'vllm-ranks' | 'vllm-ascend' | 'tensorrt-llm';

export type MapToWrite = Readonly<{
  layers: readonly number[];
  physicalToLogical: readonly (readonly number[])[];
  numGpus: number;
}>;

/** Text of a form. */
const writers: Readonly<Record<MapForm, (map: MapToWrite) => string>> = {
  sglang: ({ physicalToLogical }) => json({ physical_to_logical_map: physicalToLogical }),
  vllm: ({ physicalToLogical }) => json(physicalToLogical),
  'vllm-shared': ({ physicalToLogical }) => json(theOnlyOf(physicalToLogical)),
  'vllm-ranks': ({ physicalToLogical, numGpus }) =>
    json({ expert_to_ep_rank: ranksOf(theOnlyOf(physicalToLogical), numGpus) }),
  'vllm-ascend': ({ physicalToLogical, numGpus }) =>
    json({
      moe_layer_count: physicalToLogical.length,
      layer_list: physicalToLogical.map((slots, layer) => ({
        layer_id: layer,
        device_count: numGpus,
        device_list: Array.from({ length: numGpus }, (_, device) => {
          const perGpu = slots.length / numGpus;
          return { device_id: device, device_expert: slots.slice(device * perGpu, (device + 1) * perGpu) };
        }),
      })),
    }),
  'tensorrt-llm': ({ layers, physicalToLogical }) =>
    [
      'initial_global_assignments:',
      ...layers.map((layer, l) => `  ${layer}: [${physicalToLogical[l]!.join(', ')}]`),
      `num_slots: ${physicalToLogical[0]!.length}`,
      'layer_updates_per_iter: 0\n',
    ].join('\n'),
};

/** The names of all forms. */
export const mapForms: readonly MapForm[] = Object.keys(writers) as MapForm[];

/**
 * The text of a placement in a form.
 *
 * @throws BAD_VALUE for `vllm-ranks` with replicas, and for either one-line form with layers that differ
 */
export function writeMap(form: MapForm, map: MapToWrite): string {
  return writers[form](map);
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

function theOnlyOf(physicalToLogical: MapToWrite['physicalToLogical']): readonly number[] {
  if (new Set(physicalToLogical.map((slots) => slots.join())).size <= 1) return physicalToLogical[0]!;
  throw RoutedExpertsError.of('BAD_VALUE', 'the placement', 'another in each layer', 'the form "vllm"');
}

function ranksOf(slots: readonly number[], numGpus: number): number[] {
  const ranks: number[] = [];
  const perGpu = slots.length / numGpus;
  for (const [slot, expert] of slots.entries()) {
    if (ranks[expert] !== undefined) {
      throw RoutedExpertsError.of('BAD_VALUE', 'the placement', 'one with replicas', 'one without for "vllm-ranks"');
    }
    ranks[expert] = Math.floor(slot / perGpu);
  }
  return ranks;
}

/**
 * Reads any of the forms; which one, its content tells.
 *
 * @throws BAD_FILE for a text of no form, and for maps whose lines differ in length
 */
export function readMap(text: string, file: string): ExpertMap {
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  };
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    return fail(`neither JSON nor YAML: ${(error as Error).message.split('\n')[0]}`);
  }
  const map = mapOf(value) ?? fail(`a placement of no known form; known: ${mapForms.join(', ')}`);
  const numSlots = map.physicalToLogical[0]?.length ?? 0;
  if (numSlots === 0) fail('a placement without slots');
  for (const [l, slots] of map.physicalToLogical.entries()) {
    if (slots.length !== numSlots) fail(`line ${l} has ${slots.length} slots, line 0 has ${numSlots}`);
    if (!isSlots(slots)) fail(`line ${l} has an entry that is no expert id`);
  }
  return map;
}

function mapOf(value: unknown): ExpertMap | null {
  if (isSlots(value)) return { layers: null, physicalToLogical: [value], numGpus: null };
  if (isMatrix(value)) return { layers: null, physicalToLogical: value, numGpus: null };
  if (!isObject(value)) return null;
  const { physical_to_logical_map: sglang, expert_to_ep_rank: ranks, layer_list: ascend } = value;
  if (isMatrix(sglang)) return { layers: null, physicalToLogical: sglang, numGpus: null };
  if (isSlots(ranks)) return mapOfRanks(ranks);
  if (Array.isArray(ascend) && ascend.every(isObject)) return mapOfAscend(ascend);
  const assignments = value['initial_global_assignments'];
  if (!isObject(assignments)) return null;
  const layers = Object.keys(assignments).map(Number);
  const lines = Object.values(assignments);
  return isMatrix(lines) ? { layers, physicalToLogical: lines, numGpus: null } : null;
}

/** Experts of a GPU go by ascending id: the form does not say which slot is whose. */
function mapOfRanks(ranks: readonly number[]): ExpertMap {
  const experts = ranks.map((_, expert) => expert);
  const slots = experts.toSorted((a, b) => ranks[a]! - ranks[b]! || a - b);
  return { layers: null, physicalToLogical: [slots], numGpus: Math.max(...ranks) + 1 };
}

function mapOfAscend(list: readonly JsonObject[]): ExpertMap | null {
  const physicalToLogical: number[][] = [];
  let numGpus = 0;
  for (const { device_list: devices } of list) {
    if (!Array.isArray(devices) || !devices.every(isObject)) return null;
    const parts = devices.map(({ device_expert: experts }) => experts);
    if (!isMatrix(parts)) return null;
    physicalToLogical.push(parts.flat());
    numGpus = parts.length;
  }
  return { layers: list.map(({ layer_id: layer }) => Number(layer)), physicalToLogical, numGpus };
}

function isSlots(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && (id as number) >= 0);
}

function isMatrix(value: unknown): value is number[][] {
  return Array.isArray(value) && value.length > 0 && value.every(Array.isArray) && value.every(isSlots);
}
