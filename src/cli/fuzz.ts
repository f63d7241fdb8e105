/** `routed-experts fuzz`: designs under seeded storms in virtual time; failing seeds are shrunk, told and saved. */

import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import { scenarioOf, type CampaignPart, type SeedViolation } from '../sim/campaign.ts';
import { readCase, writeCase, type SavedCase } from '../sim/case-file.ts';
import { COVERAGE_SCENARIOS } from '../sim/coverage.ts';
import { runScenario } from '../sim/run-scenario.ts';
import { shrink } from '../sim/shrink.ts';
import { reportRun } from '../sim/run-report.ts';
import { designsOf, progressBar, withCampaignFlags, type CampaignFlags } from './fuzz/campaign-flags.ts';
import { loadDesigns, loadedDesign } from './fuzz/loaded-designs.ts';
import { exitCodeOf, EXIT, firstOfEachLaw, renderReport, thinPathsOf, type FuzzReport } from './fuzz/report.ts';
import { runCampaign } from './fuzz/run-campaign.ts';

/** Violations of a campaign that are shrunk and told, the first of each law; of the others the seeds are listed. */
const MOST_REPORTS = 5;

type Flags = CampaignFlags & { pd?: boolean; twice?: boolean; replay?: string; save: string };

export function fuzzCommand(): Command {
  const command = new Command('fuzz').description(
    'Run designs through seeded storms in virtual time and check every law at every step',
  );
  return withCampaignFlags(command, {
    seeds: 'scenarios of each design',
    defaultSeeds: 2000,
    seed: 'run one seed and report what happened in it',
    defaultDesigns: ['deltas'],
  })
    .option('--pd', 'put a prefill engine in front, behind a slow link that loses and garbles messages')
    .option('--twice', 'run each seed twice and compare the event logs (L10)')
    .option('--replay <file>', 'run a saved case, or every case of a directory')
    .option('--save <dir>', 'where shrunk failures go', 'out/fuzz')
    .addHelpText(
      'after',
      '\nExit code: 0 every law kept, 1 a wrong answer, 2 bad usage, 3 a stall, 4 a crash of the code under test, ' +
        `5 a rare path\nthat a campaign of ${COVERAGE_SCENARIOS} or more scenarios should have taken more often. ` +
        'Of several the first of 1, 4, 3, 5.',
    )
    .action(async (flags: Flags) => {
      if (flags.replay !== undefined) await runSavedCases(flags.replay, flags.json === true);
      else if (flags.seed !== undefined) await reportSeed(flags.seed, flags);
      else await fuzz(flags);
    });
}

async function fuzz(flags: Flags): Promise<void> {
  const designs = await designsOf(flags);
  const bar = progressBar(designs.length * flags.seeds);
  const startedAt = performance.now();
  const parts = await runCampaign({
    designs,
    from: flags.from,
    numSeeds: flags.seeds,
    jobs: flags.jobs,
    options: { pd: flags.pd === true, twice: flags.twice === true, stopAfter: 0 },
    onProgress: bar.add,
  });
  const seconds = (performance.now() - startedAt) / 1000;
  bar.stop();
  report(parts, seconds, flags);
}

function report(parts: readonly CampaignPart[], seconds: number, flags: Flags): void {
  const found = parts.flatMap(({ violations }) => violations);
  const told = new Set(firstOfEachLaw(found).slice(0, MOST_REPORTS));
  const violations = found.map((violation) => ({
    ...violation,
    ...(told.has(violation) ? saveCase(violation, flags) : { story: [], file: null }),
  }));
  const scenarios = parts.reduce((sum, part) => sum + part.scenarios, 0);
  const steps = parts.reduce((sum, part) => sum + part.steps, 0);
  const result: FuzzReport = {
    seeds: flags.seeds,
    from: flags.from,
    pd: flags.pd === true,
    scenarios,
    steps,
    seconds,
    scenariosPerSecond: scenarios / seconds,
    stepsPerSecond: steps / seconds,
    designs: parts.map(({ design, hash, declared, marks }) => ({ design, hash, declared, marks })),
    violations,
    thinPaths: thinPathsOf(parts, flags.pd === true),
  };
  process.exitCode = exitCodeOf(found) || (result.thinPaths.length > 0 ? EXIT.thin : 0);
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  for (const { design, seed, law, what, story, file } of violations) {
    if (file === null) continue;
    process.stdout.write(`${design}, seed ${seed}: ${law}: ${what}\n`);
    process.stdout.write(
      `${story.map((line) => `    ${line}`).join('\n')}\n    replay: routed-experts fuzz --replay ${file}\n\n`,
    );
  }
  process.stdout.write(`${renderReport(result, parts)}\n`);
}

/** Shrinks a failing seed, tells what is left, and saves it. */
function saveCase(violation: SeedViolation, { save, pd }: Flags): { story: string[]; file: string | null } {
  const tested = loadedDesign(violation.design);
  const shrunk = shrink(scenarioOf(violation.seed, tested, { pd }), tested);
  // Two runs that differ (L10) may well agree now: there is nothing to shrink.
  if (shrunk === null) return { story: [], file: null };
  const { scenario } = shrunk;
  const { law, message } = shrunk.violation;
  const name = violation.design.replace(/^[^\w]+/, '').replaceAll(/[^\w.-]+/g, '-');
  const file = join(save, `${name}-${law}-${pd === true ? 'pd-' : ''}${violation.seed}.json`);
  mkdirSync(save, { recursive: true });
  writeFileSync(
    file,
    writeCase({ design: violation.design, law, note: `seed ${violation.seed}: ${message}`, scenario }),
  );
  return { story: reportRun(scenario, tested), file };
}

async function reportSeed(seed: number, flags: Flags): Promise<void> {
  const told = (await designsOf(flags)).map((name) => {
    const tested = loadedDesign(name);
    const scenario = scenarioOf(seed, tested, flags);
    return { name, scenario, story: reportRun(scenario, tested), result: runScenario(scenario, tested) };
  });
  if (flags.json === true) {
    const answers = told.map(({ name, story, result }) => ({ design: name, seed, hash: result.hash, story }));
    process.stdout.write(`${JSON.stringify({ scenario: told[0]!.scenario, answers })}\n`);
  } else process.stdout.write(`${told.map(({ story }) => story.join('\n')).join('\n\n')}\n`);
  const broken = told.find(({ result }) => result.violation !== null)?.result.violation;
  if (broken) process.exitCode = EXIT[broken.kind];
}

/** Runs cases that broke something once: they must keep every law. */
async function runSavedCases(path: string, asJson: boolean): Promise<void> {
  const files = filesOf(path);
  const cases = files.map((file): [string, SavedCase] => [file, readCase(read(file), file)]);
  await loadDesigns(cases.map(([, { design }]) => design));
  const answers = cases.map(([file, saved]) => {
    const tested = loadedDesign(saved.design);
    const { violation, hash } = runScenario(saved.scenario, tested);
    return { file, saved, violation, hash, story: reportRun(saved.scenario, tested) };
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
