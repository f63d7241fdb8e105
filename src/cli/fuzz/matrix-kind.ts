/**
 * The campaign of `matrix`: every design alone, with a prefill engine in front, and with KV outside the device; then
 * every mutant.
 */

import { appendFileSync, writeFileSync } from 'node:fs';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { mergeParts, type CampaignPart } from '../../sim/campaign.ts';
import { mutants } from '../../sim/mutants/mutants.ts';
import type { CampaignKind, ReportFlags } from '../campaign/core/kind.ts';
import { cellsOf, renderMatrix, type MatrixCell, type MutantRow } from './matrix-page.ts';
import { loadSameDesigns, type ModuleDigests } from './module-digests.ts';
import { readMutationResults } from './mutation-results.ts';
import { exitCodeOf, EXIT, showThinPath, thinPathsOf } from './report.ts';
import { numStorms, numViolations, openStormThreads, stormSeries, type StormTask } from './storm-tasks.ts';

/** Within how many seeds a mutant must be killed. */
const MUTANT_SEEDS = 2000;

export type MatrixDescription = Readonly<{
  kind: 'matrix';
  designs: readonly string[];
  modules: ModuleDigests;
  from: number;
  seeds: number;
  pdSeeds: number;
  offloadSeeds: number;
}>;

export const matrixKind: CampaignKind<MatrixDescription, StormTask, CampaignPart> = {
  name: 'matrix',
  seriesOf: ({ designs, modules, from, seeds, pdSeeds, offloadSeeds }) => {
    const names = mutants.map(({ name }) => `mutant/${name}`);
    const twice = { twice: true, stopAfter: 0 };
    return [
      ...stormSeries({ designs, modules, from, numSeeds: seeds, options: twice }),
      ...stormSeries({ designs, modules, from, numSeeds: pdSeeds, options: { pd: true, ...twice } }),
      ...stormSeries({ designs, modules, from, numSeeds: offloadSeeds, options: { offload: true, ...twice } }),
      ...stormSeries({
        designs: names,
        modules: {},
        from,
        numSeeds: MUTANT_SEEDS,
        options: { twice: false, stopAfter: 1 },
      }),
    ];
  },
  sizeOf: numStorms,
  numViolations,
  openRunner: openStormThreads,
  checkHere: ({ designs, modules }) => loadSameDesigns(designs, modules),
  report: ({ description, results, flags }) => report(description, results.map(mergeParts), flags),
};

/** Throws BAD_FILE: minutes of work must not end with a file that cannot be read or written. */
export function checkMatrixFiles({ out, mutations }: Pick<ReportFlags, 'out' | 'mutations'>): void {
  if (mutations !== undefined) readMutationResults(mutations);
  if (out !== undefined) writeTo(out, '', appendFileSync);
}

function report(description: MatrixDescription, all: readonly CampaignPart[], flags: ReportFlags): void {
  const { designs, seeds, pdSeeds, offloadSeeds, from } = description;
  const mutations = flags.mutations === undefined ? [] : readMutationResults(flags.mutations);
  const partsOf = (place: number): readonly CampaignPart[] =>
    all.slice(place * designs.length, (place + 1) * designs.length);
  const [parts, pdParts, offloadParts] = [partsOf(0), partsOf(1), partsOf(2)];
  const killed = all.slice(3 * designs.length);
  const rows: MutantRow[] = mutants.map((mutant, i) => ({ mutant, killedBy: killed[i]!.violations[0] ?? null }));
  const survivors = rows.filter(({ killedBy }) => killedBy === null).map(({ mutant }) => mutant.name);
  const ranges = { seeds, pdSeeds, offloadSeeds, from };
  if (flags.json === true) {
    const kills = rows.map(({ mutant, killedBy }) => ({ name: mutant.name, number: mutant.number, killedBy }));
    const cells = { cells: cellsByDesign(parts), pdCells: cellsByDesign(pdParts) };
    const offloadCells = cellsByDesign(offloadParts, { isOffloading: true });
    process.stdout.write(`${JSON.stringify({ ...ranges, ...cells, offloadCells, mutants: kills, mutations })}\n`);
  }
  const page = renderMatrix({ ...ranges, parts, pdParts, offloadParts, rows, mutations });
  if (flags.out !== undefined) writeTo(flags.out, page, writeFileSync);
  else if (flags.json !== true) process.stdout.write(page);
  for (const name of survivors) process.stderr.write(`mutant "${name}" survived ${MUTANT_SEEDS} seeds\n`);
  const missed = mutations.filter((mutation) => !mutation.killed).map(({ name }) => name);
  for (const name of missed) process.stderr.write(`mutation "${name}" survived its test\n`);
  const thinPaths = [
    ...thinPathsOf(parts, {}),
    ...thinPathsOf(pdParts, { pd: true }),
    ...thinPathsOf(offloadParts, { offload: true }),
  ];
  for (const path of thinPaths) process.stderr.write(`${showThinPath(path)}\n`);
  process.exitCode =
    exitCodeOf([...parts, ...pdParts, ...offloadParts].flatMap(({ violations }) => violations)) ||
    (survivors.length + missed.length > 0 ? EXIT.wrong : 0) ||
    (thinPaths.length > 0 ? EXIT.thin : 0);
}

function writeTo(file: string, text: string, write: (file: string, text: string) => void): void {
  try {
    write(file, text);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be written: ${(error as Error).message}`);
  }
}

function cellsByDesign(
  parts: readonly CampaignPart[],
  storms: Parameters<typeof cellsOf>[1] = {},
): Record<string, readonly MatrixCell[]> {
  return Object.fromEntries(parts.map((part) => [part.design, cellsOf(part, storms)]));
}
