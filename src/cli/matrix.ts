/** `routed-experts matrix`: which design keeps which law, and which defects the campaign finds, written to docs/matrix.md. */

import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import type { CampaignPart } from '../sim/campaign.ts';
import { findSubject, mutants } from '../sim/mutants/mutants.ts';
import { subjectNames } from '../sim/subject.ts';
import { exitCodeOf } from './fuzz/report.ts';
import { cellsOf, renderMatrix, type MatrixCell, type MutantRow } from './fuzz/matrix-page.ts';
import { runCampaign, type CampaignPlan } from './fuzz/run-campaign.ts';
import { list, whole } from './options.ts';

/** Within how many seeds a mutant must be killed. */
const MUTANT_SEEDS = 2000;

type Flags = {
  seeds: number;
  from: number;
  seed?: number;
  design: string[];
  jobs: number;
  out: string;
  json?: boolean;
};

export function matrixCommand(): Command {
  return new Command('matrix')
    .description('Run every design through the same storms and write down who keeps which law')
    .option('--seeds <n>', 'scenarios of each design, each run twice', whole(1, 10_000_000), 5000)
    .option('--from <seed>', 'first seed', whole(0), 1)
    .option('--seed <seed>', 'the same as --from', whole(0))
    .option(
      '--design <names>',
      `some of: ${subjectNames.join(', ')}`,
      list((name) => findSubject(name).name),
      [...subjectNames],
    )
    .option('--jobs <n>', 'threads', whole(1, 256), availableParallelism())
    .option('--out <file>', 'where the page goes; - for standard output', 'docs/matrix.md')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nExit code: 0 no law broken that is not declared and every mutant killed, else as fuzz; 2 bad usage.',
    )
    .action(matrix);
}

async function matrix(flags: Flags): Promise<void> {
  const from = flags.seed ?? flags.from;
  const names = mutants.map(({ name }) => `mutant/${name}`);
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: '{bar} {value}/{total} scenarios', stream: process.stderr, clearOnComplete: true })
    : null;
  bar?.start(flags.design.length * flags.seeds + names.length * MUTANT_SEEDS, 0);
  const shared = { from, jobs: flags.jobs, onProgress: (done: number) => bar?.increment(done) };
  const run = (plan: Pick<CampaignPlan, 'designs' | 'numSeeds' | 'options'>): Promise<CampaignPart[]> =>
    runCampaign({ ...shared, ...plan });
  const parts = await run({ designs: flags.design, numSeeds: flags.seeds, options: { twice: true, stopAfter: 0 } });
  const killed = await run({ designs: names, numSeeds: MUTANT_SEEDS, options: { twice: false, stopAfter: 1 } });
  bar?.stop();

  const rows: MutantRow[] = mutants.map((mutant, i) => ({ mutant, killedBy: killed[i]!.violations[0] ?? null }));
  const cells: Record<string, readonly MatrixCell[]> = Object.fromEntries(
    parts.map((part) => [part.design, cellsOf(part)]),
  );
  const survivors = rows.filter(({ killedBy }) => killedBy === null).map(({ mutant }) => mutant.name);
  if (flags.json === true) {
    const kills = rows.map(({ mutant, killedBy }) => ({ name: mutant.name, number: mutant.number, killedBy }));
    process.stdout.write(`${JSON.stringify({ seeds: flags.seeds, from, cells, mutants: kills })}\n`);
  }
  const page = renderMatrix({ seeds: flags.seeds, from, parts, rows });
  if (flags.out !== '-') writeFileSync(flags.out, page);
  else if (flags.json !== true) process.stdout.write(page);
  for (const name of survivors) process.stderr.write(`mutant "${name}" survived ${MUTANT_SEEDS} seeds\n`);
  process.exitCode = exitCodeOf(parts.flatMap(({ violations }) => violations)) || (survivors.length > 0 ? 1 : 0);
}
