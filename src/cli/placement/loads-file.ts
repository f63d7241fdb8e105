/** Loads of experts from a file: `{"weight": [L][E]}`, or SGLang's `{"logical_count": [L][E]}` or `[passes][L][E]`. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { readJson } from '../../rows/files/file-kind.ts';
import { isObject } from '../../rows/json-object.ts';

/** Loads `[L][E]`. @throws BAD_FILE that names the place and the rule */
export function readLoads(path: string): number[][] {
  const value = readJson(path);
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', path, problem);
  };
  if (!isObject(value)) return fail('is no JSON object with "weight": [layers][experts]');
  const name = value['weight'] === undefined ? 'logical_count' : 'weight';
  const loads = value[name];
  if (!isList(loads)) return fail('has no "weight": [layers][experts]');
  if (loads.length === 0) return fail(`${name} has no layer`);
  const isOfPasses = isList(loads[0]) && isList(loads[0][0]);
  const passes = isOfPasses ? loads : [loads];
  const sums: number[][] = [];
  for (const [p, pass] of passes.entries()) {
    if (!isList(pass)) return fail(`${name}[${p}] is no list`);
    for (const [l, layer] of pass.entries()) {
      const place = isOfPasses ? `${name}[${p}][${l}]` : `${name}[${l}]`;
      if (!isList(layer) || layer.length === 0) return fail(`${place} is no list of loads`);
      const before = (sums[l] ??= layer.map(() => 0));
      if (layer.length !== before.length || layer.length !== sums[0]!.length) {
        return fail(`${place} has ${layer.length} experts, layer 0 has ${sums[0]!.length}`);
      }
      for (const [e, load] of layer.entries()) {
        if (typeof load !== 'number' || !Number.isFinite(load) || load < 0) {
          return fail(`${place}[${e}] is ${JSON.stringify(load)}, no number ≥ 0`);
        }
        before[e]! += load;
      }
    }
  }
  return sums;
}

function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}
