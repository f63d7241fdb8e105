/** Files of recorded placements: DeepSeek's, vLLM's, and one placement in every engine's form. */

import type { EplbShape } from '../../../analysis/placement/eplb.ts';
import { eplb } from '../../../analysis/placement/eplb.ts';
import type { MapForm, MapToWrite } from '../../../analysis/placement/map-files.ts';
import { readMap, writeMap } from '../../../analysis/placement/map-files.ts';
import { gpuLoadsOf, placementOf } from '../../../analysis/placement/placement.ts';
import { slotsChanged, vllmPolicy } from '../../../analysis/placement/vllm-policy.ts';
import type { JsonObject } from '../../../rows/json-object.ts';
import { isObject } from '../../../rows/json-object.ts';
import type { Tolerance } from './differences.ts';
import { differences } from './differences.ts';

/** Recorded GPU loads are rounded. */
const LOADS: Tolerance = { relative: 1e-6, absolute: 1e-6 };

type EplbCase = EplbShape &
  Readonly<{
    name: string;
    weight: number[][];
    tie?: 'none' | 'experts' | 'groups';
    physicalToLogical: number[][];
    stablePhysicalToLogical?: number[][];
    logicalToPhysical?: number[][][];
    logicalCount?: number[][];
    gpuLoads: number[][];
    vllmPhysicalToLogical?: number[][];
    /** vLLM's policy, where the case is one of it. */
    policy?: 'hierarchical' | 'global';
    oldPhysicalToLogical?: number[][] | null;
    slotsChanged?: number | null;
    slotsChangedWithoutPreserving?: number | null;
    deepseekAgrees?: boolean;
  }>;

const exact = (): Tolerance => ({ relative: 0, absolute: 0 });

/** What differs, the case's name in front. */
export function verifyEplb({ cases }: JsonObject): string[] {
  return (cases as EplbCase[]).flatMap((golden) => {
    const found = 'policy' in golden ? vllmCase(golden) : deepseekCase(golden);
    return found.map((difference) => `${golden.name}: ${difference}`);
  });
}

/** With ties the recorded map hangs on its machine's sort. The map of a stable sort stands beside it. */
function deepseekCase(golden: EplbCase): string[] {
  const { weight, tie = 'none', stablePhysicalToLogical: stable } = golden;
  const own = eplb(weight, golden);
  const recorded: Record<string, unknown> = { physicalToLogical: stable ?? golden.physicalToLogical };
  const isSameMap = stable === undefined;
  if (isSameMap && golden.logicalCount !== undefined) recorded['logicalCount'] = golden.logicalCount;
  if (isSameMap && golden.logicalToPhysical !== undefined) {
    recorded['logicalToPhysical'] = golden.logicalToPhysical.map((experts) => experts.map(asSet));
  }
  if (tie !== 'groups') recorded['gpuLoads'] = golden.gpuLoads;
  if (golden.vllmPhysicalToLogical !== undefined) recorded['vllmPhysicalToLogical'] = golden.vllmPhysicalToLogical;
  const answer = {
    ...own,
    logicalToPhysical: own.logicalToPhysical.map((experts) => experts.map(asSet)),
    gpuLoads: loadsOf(golden, own.physicalToLogical),
    vllmPhysicalToLogical: vllmPolicy(weight, golden),
  };
  return differences(recorded, answer, () => LOADS);
}

function vllmCase(golden: EplbCase): string[] {
  const { weight, oldPhysicalToLogical: old = null, numGroups, numNodes } = golden;
  const fresh = vllmPolicy(weight, golden);
  const own = vllmPolicy(weight, golden, old);
  const deepseek = eplb(weight, golden).physicalToLogical;
  const answer = {
    policy: numGroups % numNodes === 0 ? 'hierarchical' : 'global',
    physicalToLogical: own,
    gpuLoads: loadsOf(golden, own),
    slotsChanged: old === null ? null : slotsChanged(old, own),
    slotsChangedWithoutPreserving: old === null ? null : slotsChanged(old, fresh),
    deepseekAgrees: slotsChanged(deepseek, fresh) === 0,
  };
  const recorded = Object.entries(golden).filter(([key]) => key in answer);
  return differences(Object.fromEntries(recorded), answer, () => LOADS);
}

function loadsOf({ weight, numGpus }: EplbCase, maps: readonly Int32Array[]): Float64Array[] {
  return gpuLoadsOf(placementOf(maps, weight[0]!.length, numGpus), weight);
}

function asSet(slots: readonly number[]): number[] {
  return slots.filter((slot) => slot >= 0).toSorted((a, b) => a - b);
}

type GoldenMaps = EplbShape &
  Readonly<{
    layers: number[];
    weight: number[][];
    physicalToLogical: number[][];
    forms: Readonly<Record<string, unknown>>;
    withoutReplicas?: Readonly<{ numReplicas: number; physicalToLogical: number[][] }>;
  }>;

type NamedForm = Readonly<{ form: MapForm; oneLayer?: boolean; withoutReplicas?: boolean }>;

const FORMS: Readonly<Record<string, NamedForm>> = {
  'sglang-physical_to_logical_map': { form: 'sglang' },
  'vllm-initial_expert_map_path': { form: 'vllm' },
  'vllm-initial_expert_map_path-shared': { form: 'vllm-shared', oneLayer: true },
  'vllm-expert_placement_file': { form: 'vllm-ranks', oneLayer: true, withoutReplicas: true },
  'vllm-ascend-expert_map_path': { form: 'vllm-ascend' },
  'tensorrt-llm-yaml': { form: 'tensorrt-llm' },
};

/** Each form written, compared with what is recorded, and read back. */
export function verifyMaps(golden: JsonObject): string[] {
  const maps = golden as unknown as GoldenMaps;
  const found = differences(
    { eplb: maps.physicalToLogical },
    { eplb: eplb(maps.weight, maps).physicalToLogical },
    exact,
  );
  if (maps.withoutReplicas !== undefined) {
    const shape = { ...maps, numReplicas: maps.withoutReplicas.numReplicas };
    const own = { withoutReplicas: eplb(maps.weight, shape).physicalToLogical };
    found.push(...differences({ withoutReplicas: maps.withoutReplicas.physicalToLogical }, own, exact));
  }
  for (const [name, recorded] of Object.entries(maps.forms)) {
    if (name === 'sglang-logical_count') {
      found.push(...differences(recorded, { logical_count: maps.weight }, exact, name));
      continue;
    }
    const known = FORMS[name];
    if (known === undefined) found.push(`forms.${name}: a form that is not known here`);
    else found.push(...verifyForm(name, known, recorded, maps).map((difference) => `forms.${difference}`));
  }
  return found;
}

function verifyForm(name: string, known: NamedForm, recorded: unknown, maps: GoldenMaps): string[] {
  const source = known.withoutReplicas === true ? maps.withoutReplicas : maps;
  if (source === undefined) return [`${name}: no placement without replicas is recorded`];
  const lines = known.oneLayer === true ? source.physicalToLogical.slice(0, 1) : source.physicalToLogical;
  const map: MapToWrite = { layers: maps.layers, physicalToLogical: lines, numGpus: maps.numGpus };
  const text = writeMap(known.form, map);
  const written: unknown = typeof recorded === 'string' ? text : JSON.parse(text);
  const found = differences(recorded, written, exact, name);
  // The form of ranks does not say the order of a GPU's slots.
  const read = readMap(typeof recorded === 'string' ? recorded : JSON.stringify(recorded), name).physicalToLogical;
  const perGpu = source.numReplicas / maps.numGpus;
  const ordered = known.form === 'vllm-ranks' ? lines.map((slots) => sortedWithin(slots, perGpu)) : lines;
  return [...found, ...differences(ordered, read, exact, `${name}, read back`)];
}

function sortedWithin(slots: readonly number[], size: number): number[] {
  return slots
    .map((expert, slot) => ({ expert, gpu: Math.floor(slot / size) }))
    .toSorted((a, b) => a.gpu - b.gpu || a.expert - b.expert)
    .map(({ expert }) => expert);
}

/** Whether a golden file is one of these. */
export function isMapsGolden(golden: JsonObject): boolean {
  return isObject(golden['forms']) && Array.isArray(golden['weight']);
}
