/** `routed-experts matrix`: which design keeps which law, and which defects the campaign finds. */

import { appendFileSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { CampaignPart } from '../sim/campaign.ts';
import { mutants } from '../sim/mutants/mutants.ts';
import { testedDesignNames } from '../sim/tested-design.ts';
import { designsOf, progressBar, withCampaignFlags, type CampaignFlags } from './fuzz/campaign-flags.ts';
import { exitCodeOf, EXIT, showThinPath, thinPathsOf } from './fuzz/report.ts';
import { cellsOf, renderMatrix, type MatrixCell, type MutantRow } from './fuzz/matrix-page.ts';
import { readMutationResults } from './fuzz/mutation-results.ts';
import { runCampaign, type CampaignPlan } from './fuzz/run-campaign.ts';
import { whole } from './options.ts';

/** Within how many seeds a mutant must be killed. */
const MUTANT_SEEDS = 2000;

type Flags = CampaignFlags & { pdSeeds: number; mutations?: string; out?: string };

export function matrixCommand(): Command {
  const command = new Command('matrix').description(
    'Run every design, then every mutant, through the same storms (minutes); write which laws each keeps',
  );
  return withCampaignFlags(command, {
    seeds: 'scenarios of each design, each run twice',
    defaultSeeds: 5000,
    seed: 'the same as --from',
    defaultDesigns: testedDesignNames,
  })
    .option('--pd-seeds <n>', 'of scenarios with a prefill engine in front', whole(1, 10_000_000), 2000)
    .option('--mutations <file>', 'a table of what `npm run mutations -- --json FILE` found, too')
    .option('--out <file>', 'write the page to this file, not to standard output')
    .addHelpText(
      'after',
      '\nExit code: 0 no law broken that is not declared, every mutant and mutation killed, else as fuzz; 2 bad usage.',
    )
    .action(matrix);
}

async function matrix(flags: Flags): Promise<void> {
  const from = flags.seed ?? flags.from;
  const designs = await designsOf(flags);
  const names = mutants.map(({ name }) => `mutant/${name}`);
  const mutations = flags.mutations === undefined ? [] : readMutationResults(flags.mutations);
  // Minutes of work must not end with a file that cannot be written.
  if (flags.out !== undefined) writeTo(flags.out, '', appendFileSync);
  const bar = progressBar(designs.length * (flags.seeds + flags.pdSeeds) + names.length * MUTANT_SEEDS);
  const shared = { from, jobs: flags.jobs, onProgress: bar.add };
  const run = (plan: Pick<CampaignPlan, 'designs' | 'numSeeds' | 'options'>): Promise<CampaignPart[]> =>
    runCampaign({ ...shared, ...plan });
  const parts = await run({ designs, numSeeds: flags.seeds, options: { twice: true, stopAfter: 0 } });
  const pdParts = await run({ designs, numSeeds: flags.pdSeeds, options: { pd: true, twice: true, stopAfter: 0 } });
  const killed = await run({ designs: names, numSeeds: MUTANT_SEEDS, options: { twice: false, stopAfter: 1 } });
  bar.stop();

  const rows: MutantRow[] = mutants.map((mutant, i) => ({ mutant, killedBy: killed[i]!.violations[0] ?? null }));
  const cells = cellsByDesign(parts);
  const pdCells = cellsByDesign(pdParts);
  const survivors = rows.filter(({ killedBy }) => killedBy === null).map(({ mutant }) => mutant.name);
  if (flags.json === true) {
    const kills = rows.map(({ mutant, killedBy }) => ({ name: mutant.name, number: mutant.number, killedBy }));
    const { seeds, pdSeeds } = flags;
    process.stdout.write(`${JSON.stringify({ seeds, pdSeeds, from, cells, pdCells, mutants: kills, mutations })}\n`);
  }
  const page = renderMatrix({ seeds: flags.seeds, pdSeeds: flags.pdSeeds, from, parts, pdParts, rows, mutations });
  if (flags.out !== undefined) writeTo(flags.out, page, writeFileSync);
  else if (flags.json !== true) process.stdout.write(page);
  for (const name of survivors) process.stderr.write(`mutant "${name}" survived ${MUTANT_SEEDS} seeds\n`);
  const missed = mutations.filter((mutation) => !mutation.killed).map(({ name }) => name);
  for (const name of missed) process.stderr.write(`mutation "${name}" survived its test\n`);
  const thinPaths = [...thinPathsOf(parts, false), ...thinPathsOf(pdParts, true)];
  for (const path of thinPaths) process.stderr.write(`${showThinPath(path)}\n`);
  process.exitCode =
    exitCodeOf([...parts, ...pdParts].flatMap(({ violations }) => violations)) ||
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

function cellsByDesign(parts: readonly CampaignPart[]): Record<string, readonly MatrixCell[]> {
  return Object.fromEntries(parts.map((part) => [part.design, cellsOf(part)]));
}
