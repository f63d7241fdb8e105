/** `routed-experts fuzz`: designs under seeded storms in virtual time; failing seeds are shrunk, told and saved. */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { requireStages } from '../capture/designs.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { scenarioOf } from '../sim/campaign.ts';
import { readCase, type SavedCase } from '../sim/case-file.ts';
import { COVERAGE_SCENARIOS } from '../sim/coverage.ts';
import { runScenario } from '../sim/run-scenario.ts';
import { reportRun } from '../sim/run-report.ts';
import { runCampaign } from './campaign/run-campaign.ts';
import { givenFields, refuseRunFlags } from './campaign/run-flags.ts';
import { designsOf, withCampaignFlags, type CampaignFlags } from './fuzz/campaign-flags.ts';
import { CASE_FOLDER, fuzzKind, type FuzzDescription } from './fuzz/fuzz-kind.ts';
import { loadDesigns, loadedDesign } from './fuzz/loaded-designs.ts';
import { digestsOf } from './fuzz/module-digests.ts';
import { EXIT } from './fuzz/report.ts';

type Flags = CampaignFlags & {
  pd?: boolean;
  offload?: boolean;
  pipeline?: boolean;
  twice?: boolean;
  replay?: string;
  save: string;
};

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
    .addOption(
      new Option(
        '--offload',
        'keep evicted KV in host memory and in files; copies are slow or fail, and files are not always believed',
      ).conflicts('pd'),
    )
    .addOption(
      new Option(
        '--pipeline',
        'split each model’s layers over two to four stages, which hand hidden states on',
      ).conflicts(['pd', 'offload']),
    )
    .option('--twice', 'run each seed twice and compare the event logs (L10)')
    .option('--replay <file>', 'run a saved case, or every case of a directory')
    .option('--save <dir>', 'where shrunk failures go', CASE_FOLDER)
    .addHelpText(
      'after',
      '\nExit code: 0 every law kept, 1 a wrong answer, 2 bad usage, 3 a stall, 4 a crash of the code under test, ' +
        `5 a rare path\nthat a campaign of ${COVERAGE_SCENARIOS} or more scenarios should have taken more often. ` +
        'Of several the first of 1, 4, 3, 5. 130 a signal\nstopped a campaign that goes on by its id. ' +
        'With --shard: 0 the part is written.',
    )
    .action(async (flags: Flags, self: Command) => {
      if (flags.replay !== undefined || flags.seed !== undefined) refuseRunFlags(flags, '--replay or --seed');
      if (flags.replay !== undefined) await runSavedCases(flags.replay, flags.json === true);
      else if (flags.seed !== undefined) await reportSeed(flags.seed, flags);
      else await fuzz(flags, self);
    });
}

/** Throws BAD_VALUE for two kinds of storm at once, and STAGES_REFUSED for a design that does not go with stages. */
async function designsFor(flags: Flags): Promise<readonly string[]> {
  const designs = await designsOf(flags);
  if (flags.pipeline !== true) return designs;
  if (flags.pd === true) {
    throw RoutedExpertsError.of('BAD_VALUE', '--pd', true, 'one of --pd and --pipeline: the KV of a stage stays there');
  }
  for (const name of designs) requireStages(loadedDesign(name).design);
  return designs;
}

async function fuzz(flags: Flags, command: Command): Promise<void> {
  const designs = await designsFor(flags);
  const description: FuzzDescription = {
    kind: 'fuzz',
    designs,
    modules: digestsOf(designs),
    from: flags.from,
    seeds: flags.seeds,
    pd: flags.pd === true,
    ...(flags.offload === true ? { offload: true as const } : {}),
    ...(flags.pipeline === true ? { pipeline: true as const } : {}),
    twice: flags.twice === true,
  };
  const options = {
    designs: ['design'],
    modules: ['design'],
    from: ['from'],
    seeds: ['seeds'],
    pd: ['pd'],
    offload: ['offload'],
    pipeline: ['pipeline'],
    twice: ['twice'],
  };
  await runCampaign(fuzzKind, description, givenFields(command, options), flags);
}

async function reportSeed(seed: number, flags: Flags): Promise<void> {
  const told = (await designsFor(flags)).map((name) => {
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
