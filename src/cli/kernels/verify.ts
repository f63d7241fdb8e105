/**
 * Router kernels against recorded answers of published models' routers: every file, every variant, every place that it
 * can run.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedRow } from '../../kernels/router/reference/router-reference.ts';
import { putRows, routeRows } from '../../kernels/router/reference/router-reference.ts';
import { WEIGHT_TOLERANCE, countWrongIds, isGroupTie, marginOf } from '../../kernels/router/router-check.ts';
import type { RoutedLogits } from '../../kernels/router/router-run.ts';
import { runRouter } from '../../kernels/router/router-run.ts';
import type { RouterAlgorithm, RouterHost, RouterVariant } from '../../kernels/router/router-variant.ts';
import { routerVariants } from '../../kernels/router/router-variant.ts';
import type { Golden, GoldenCase } from './golden-file.ts';
import { readGolden } from './golden-file.ts';

export type VerifiedCase = {
  name: string;
  /** `reference`, an algorithm, or `null/` and an algorithm: compiled and validated, not run. */
  variant: string;
  rows: number;
  wrongIds: number;
  maxRelativeWeightError: number;
  ok: boolean;
  problem?: string;
};

export type VerifyResult = Readonly<{ passed: number; failed: number; cases: readonly VerifiedCase[] }>;

/** `isNull`: the device computes nothing. `algorithms`: those to run, absent = all that the host can. */
export type VerifyDevice = Readonly<{
  device: Device;
  host: RouterHost;
  isNull: boolean;
  algorithms?: readonly RouterAlgorithm[];
}>;

/** The `*.json` of a directory in order of name. Throws `BAD_FILE` if it cannot be read or has none. */
export function goldenFiles(directory: string): readonly string[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', directory, `${(error as Error).message}; give a directory of *.json`);
  }
  const files = names.filter((name) => name.endsWith('.json')).sort();
  if (files.length === 0) throw RoutedExpertsError.of('BAD_FILE', directory, 'holds no *.json');
  return files.map((name) => join(directory, name));
}

/** Verifies every file; one that cannot be read is a failed case of its own, and the rest still run. */
export async function verifyFiles(
  files: readonly string[],
  devices: readonly VerifyDevice[],
  onCase: (verified: VerifiedCase) => void = () => undefined,
): Promise<VerifyResult> {
  const cases: VerifiedCase[] = [];
  const add = (verified: VerifiedCase): void => {
    cases.push(verified);
    onCase(verified);
  };
  for (const file of files) {
    let golden: Golden;
    try {
      golden = readGolden(file);
    } catch (error) {
      const problem = (error as Error).message;
      const name = file.replace(/^.*[/\\]/, '');
      add({ name, variant: 'none', rows: 0, wrongIds: 0, maxRelativeWeightError: 0, ok: false, problem });
      continue;
    }
    await verifyGolden(golden, devices, add);
  }
  const passed = cases.filter(({ ok }) => ok).length;
  return { passed, failed: cases.length - passed, cases };
}

async function verifyGolden(
  { name, cases }: Golden,
  devices: readonly VerifyDevice[],
  add: (verified: VerifiedCase) => void,
): Promise<void> {
  const expected = cases.map(({ router, logits, bias }) => routeRows(router, logits, bias));
  const byVariant = new Map<string, VerifiedCase>();
  const of = (variant: string): VerifiedCase => {
    let verified = byVariant.get(variant);
    verified ??= { name, variant, rows: 0, wrongIds: 0, maxRelativeWeightError: 0, ok: true };
    byVariant.set(variant, verified);
    return verified;
  };
  for (const [i, golden] of cases.entries()) {
    const numChosen = golden.numTokens * golden.router.topK;
    const answer = { ids: new Uint32Array(numChosen), weights: new Float32Array(numChosen) };
    putRows(expected[i]!, answer.ids, answer.weights);
    compare(of('reference'), golden, expected[i]!, answer);
    for (const { device, host, isNull, algorithms } of devices) {
      for (const variant of routerVariants(golden.router, host, golden.numTokens)) {
        if (algorithms !== undefined && !algorithms.includes(variant.algorithm)) continue;
        const verified = of(isNull ? `null/${variant.algorithm}` : variant.algorithm);
        const routed = await attempt(verified, device, golden, variant);
        if (routed !== null && !isNull) compare(verified, golden, expected[i]!, routed);
      }
    }
  }
  for (const verified of byVariant.values()) {
    verified.ok = verified.problem === undefined && verified.wrongIds === 0;
    if (!(verified.maxRelativeWeightError <= WEIGHT_TOLERANCE)) verified.ok = false;
    add(verified);
  }
}

async function attempt(
  verified: VerifiedCase,
  device: Device,
  { router, logits, bias }: GoldenCase,
  variant: RouterVariant,
): Promise<RoutedLogits | null> {
  try {
    return await runRouter(device, router, variant, logits, bias);
  } catch (error) {
    // A kernel's source follows its first problem after an empty line.
    verified.problem ??= (error as Error).message.split('\n\n')[0]!;
    return null;
  }
}

/**
 * Ours with the recorded answer and with the reference. A recorded set of ids may differ from ours only in choices
 * within the margin, since its maker rounded its scores to f32, too; a recorded order has no margin.
 */
function compare(verified: VerifiedCase, golden: GoldenCase, rows: readonly RoutedRow[], answer: RoutedLogits): void {
  const { router, numTokens, ids, weights, isOrdered } = golden;
  const { topK, groups } = router;
  for (let row = 0; row < numTokens; row++) {
    const at = row * topK;
    const own = answer.ids.subarray(at, at + topK);
    const theirs = ids.subarray(at, at + topK);
    const expected = rows[row]!;
    verified.rows++;
    if (isOrdered) {
      verified.wrongIds += theirs.filter((id, k) => id !== own[k]).length;
    } else if (groups === null || !isGroupTie(expected.groupScores, groups.keep, true)) {
      verified.wrongIds += Math.max(countWrongIds(own, expected, true), countStrangers(own, theirs, expected));
    }
    if (weights === null) continue;
    for (let k = 0; k < topK; k++) {
      const other = theirs.indexOf(own[k]!);
      if (other < 0) continue;
      const wanted = weights[at + other]!;
      const error = Math.abs(answer.weights[at + k]! - wanted) / Math.max(Math.abs(wanted), 2 ** -126);
      if (!(error <= verified.maxRelativeWeightError)) verified.maxRelativeWeightError = error;
    }
  }
}

/** Ids of ours that are not among theirs, although no rounding brings them as near as the K-th choice. */
function countStrangers(own: Uint32Array, theirs: Uint32Array, { ids, choices }: RoutedRow): number {
  const last = choices[ids.at(-1)!]!;
  return own.filter((id) => !theirs.includes(id) && Math.abs(choices[id]! - last) > marginOf(last)).length;
}
