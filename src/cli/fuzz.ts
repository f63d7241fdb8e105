/** `routed-experts fuzz`: designs under seeded storms in virtual time; failing seeds are shrunk, told and saved. */

import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { CampaignPart, SeedViolation } from '../sim/campaign.ts';
import { readCase, writeCase, type SavedCase } from '../sim/case-file.ts';
import { drawScenario } from '../sim/draw-scenario.ts';
import { findSubject } from '../sim/mutants/mutants.ts';
import { runScenario } from '../sim/run-scenario.ts';
import { shrink } from '../sim/shrink.ts';
import { tellStory } from '../sim/story.ts';
import { subjectByName, subjectNames } from '../sim/subject.ts';
import { exitCodeOf, EXIT, renderReport, type FuzzReport } from './fuzz/report.ts';
import { runCampaign } from './fuzz/run-campaign.ts';
import { list, whole } from './options.ts';

/** Violations of a campaign that are shrunk and told; the others are listed. */
const MOST_STORIES = 5;

type Flags = {
  seeds: number;
  from: number;
  seed?: number;
  design: string[];
  jobs: number;
  twice?: boolean;
  replay?: string;
  save: string;
  json?: boolean;
};

export function fuzzCommand(): Command {
  return new Command('fuzz')
    .description('Run designs through seeded storms in virtual time and check every law at every step')
    .option('--seeds <n>', 'scenarios of each design', whole(1, 10_000_000), 2000)
    .option('--from <seed>', 'first seed; 0x and a commit id draws fresh ones', whole(0), 1)
    .option('--seed <seed>', 'run one seed and tell its story', whole(0))
    .option('--design <names>', `all, or some of: ${subjectNames.join(', ')}`, list(knownSubject), ['deltas'])
    .option('--jobs <n>', 'threads', whole(1, 256), availableParallelism())
    .option('--twice', 'run each seed twice and compare the event logs (L10)')
    .option('--replay <file>', 'run a saved case, or every case of a directory')
    .option('--save <dir>', 'where shrunk failures go', 'out/fuzz')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nExit code: 0 every law kept, 1 a wrong answer, 2 bad usage, 3 a stall, 4 a crash of the code under test.',
    )
    .action(async (flags: Flags) => {
      if (flags.replay !== undefined) replay(flags.replay, flags.json === true);
      else if (flags.seed !== undefined) tellSeed(flags.seed, flags);
      else await fuzz(flags);
    });
}

async function fuzz(flags: Flags): Promise<void> {
  const designs = flags.design.includes('all') ? [...subjectNames] : flags.design;
  const numAll = designs.length * flags.seeds;
  const bar = process.stderr.isTTY
    ? new SingleBar({
        format: '{bar} {value}/{total} scenarios, {rate}/s',
        stream: process.stderr,
        clearOnComplete: true,
      })
    : null;
  bar?.start(numAll, 0, { rate: 0 });
  const startedAt = performance.now();
  let done = 0;
  const parts = await runCampaign({
    designs,
    from: flags.from,
    numSeeds: flags.seeds,
    jobs: flags.jobs,
    options: { twice: flags.twice === true, stopAfter: 0 },
    onProgress: (scenarios) => {
      done += scenarios;
      bar?.update(done, { rate: Math.round((1000 * done) / (performance.now() - startedAt)) });
    },
  });
  const seconds = (performance.now() - startedAt) / 1000;
  bar?.stop();
  report(parts, seconds, flags);
}

function report(parts: readonly CampaignPart[], seconds: number, flags: Flags): void {
  const found = parts.flatMap(({ violations }) => violations);
  const violations = found.map((violation, i) => ({
    ...violation,
    ...(i < MOST_STORIES ? saveStory(violation, flags.save) : { story: [], file: null }),
  }));
  const scenarios = parts.reduce((sum, part) => sum + part.scenarios, 0);
  const steps = parts.reduce((sum, part) => sum + part.steps, 0);
  const result: FuzzReport = {
    seeds: flags.seeds,
    from: flags.from,
    scenarios,
    steps,
    seconds,
    scenariosPerSecond: scenarios / seconds,
    stepsPerSecond: steps / seconds,
    designs: parts.map(({ design, hash, declared, marks }) => ({ design, hash, declared, marks })),
    violations,
  };
  process.exitCode = exitCodeOf(found);
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  for (const { design, seed, law, what, story, file } of violations) {
    process.stdout.write(`${design}, seed ${seed}: ${law}: ${what}\n`);
    if (file === null) continue;
    process.stdout.write(
      `${story.map((line) => `    ${line}`).join('\n')}\n    replay: routed-experts fuzz --replay ${file}\n\n`,
    );
  }
  process.stdout.write(`${renderReport(result, parts)}\n`);
}

/** Shrinks a failing seed, tells what is left, and saves it. */
function saveStory(violation: SeedViolation, directory: string): { story: string[]; file: string | null } {
  const subject = findSubject(violation.design);
  const shrunk = shrink(drawScenario(violation.seed), subject);
  // Two runs that differ (L10) may well agree now: there is nothing to shrink.
  if (shrunk === null) return { story: [], file: null };
  const { scenario } = shrunk;
  const { law, message } = shrunk.violation;
  const file = join(directory, `${violation.design.replaceAll('/', '-')}-${law}-${violation.seed}.json`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    file,
    writeCase({ design: violation.design, law, note: `seed ${violation.seed}: ${message}`, scenario }),
  );
  return { story: tellStory(scenario, subject), file };
}

function tellSeed(seed: number, { design, json }: Flags): void {
  const scenario = drawScenario(seed);
  const told = design.map((name) => ({ name, story: tellStory(scenario, subjectByName(name)) }));
  const results = design.map((name) => runScenario(scenario, subjectByName(name)));
  const broken = results.flatMap(({ violation }) => violation ?? []);
  if (json === true) {
    const answers = told.map(({ name, story }, i) => ({ design: name, seed, hash: results[i]!.hash, story }));
    process.stdout.write(`${JSON.stringify({ scenario, answers })}\n`);
  } else process.stdout.write(`${told.map(({ story }) => story.join('\n')).join('\n\n')}\n`);
  if (broken.length > 0) process.exitCode = EXIT[broken[0]!.kind];
}

/** Cases that broke something once must keep every law now. */
function replay(path: string, asJson: boolean): void {
  const files = filesOf(path);
  const answers = files.map((file) => {
    const saved: SavedCase = readCase(read(file), file);
    const subject = findSubject(saved.design);
    const { violation, hash } = runScenario(saved.scenario, subject);
    return { file, saved, violation, hash, story: tellStory(saved.scenario, subject) };
  });
  if (asJson) {
    const shown = answers.map(({ file, saved, violation, hash, story }) => ({
      file,
      design: saved.design,
      law: violation?.law ?? null,
      hash,
      story,
    }));
    process.stdout.write(`${JSON.stringify(shown)}\n`);
  } else {
    for (const { file, violation, hash, story } of answers) {
      if (files.length === 1 || violation !== null) process.stdout.write(`${story.join('\n')}\n`);
      process.stdout.write(
        `${file}: ${violation === null ? 'every law kept' : `${violation.law} broken`}, event log ${hash}\n`,
      );
    }
  }
  const broken = answers.find(({ violation }) => violation !== null)?.violation;
  if (broken) process.exitCode = EXIT[broken.kind];
}

function filesOf(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path).filter((name) => name.endsWith('.json'));
    if (names.length > 0) return names.sort().map((name) => join(path, name));
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', path, (error as Error).message);
  }
  throw RoutedExpertsError.of('BAD_FILE', path, 'holds no saved case (*.json)');
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, (error as Error).message);
  }
}

function knownSubject(name: string): string {
  return name === 'all' ? name : findSubject(name).name;
}
