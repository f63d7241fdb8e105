/** `routed-experts cluster`: DP × TP × EP in virtual time, to thousands of ranks. */

import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { parseStepTime } from '../../kernels/device/clock/clock-times.ts';
import { DEFAULT_MODEL, MODEL_NAMES } from '../../kernels/model/model-presets.ts';
import { FAULT_FORMS, microseconds, parseFault } from '../../sim/cluster/cluster-fault.ts';
import { MOST_RANKS } from '../../sim/cluster/cluster-options.ts';
import { findTestedDesign } from '../../sim/mutants/mutants.ts';
import { testedDesignNames } from '../../sim/tested-design.ts';
import { checkOutputs } from '../bench/report/output-files.ts';
import { runCampaign } from '../campaign/run-campaign.ts';
import { givenFields, withRunFlags } from '../campaign/run-flags.ts';
import { finite, list, whole } from '../options.ts';
import { compareWithBench } from './against.ts';
import { PRESETS, cellsOf, type ClusterFlags } from './cluster-flags.ts';
import { clusterKind } from './cluster-kind.ts';
import { csvFile } from './cluster-report.ts';

export function clusterCommand(): Command {
  const command = new Command('cluster')
    .description('Run data-parallel engines and their ranks in virtual time, and check every row against every law')
    .addOption(new Option('--preset <name>', 'rfc: the set-up of RFC vllm#38079').choices(Object.keys(PRESETS)))
    .option('--data-parallel <n>', 'engines (default: 2)', whole(1, MOST_RANKS))
    .option('--tensor-parallel <n>', 'ranks of each engine (default: 8)', whole(1, MOST_RANKS))
    .option('--nodes <n>', 'machines that the engines are spread over (default: one for 8 ranks)', whole(1, MOST_RANKS))
    .option('--model <name>', `model shape: ${MODEL_NAMES.join(', ')}`, DEFAULT_MODEL)
    .addOption(
      new Option('--design <names>', `designs, a cluster each, of ${testedDesignNames.join(', ')}`)
        .argParser(list((name) => findTestedDesign(name).name))
        .default(['deltas'], 'deltas'),
    )
    .option('--opt-in <share>', 'share of requests that ask for rows', finite(0, 1), 1)
    .option('--concurrency <n>', 'requests in flight in each engine', whole(1, 4096), 32)
    .option('--gap <time>', 'from the end of a request to the next of its client', time, 0)
    .addOption(
      new Option('--prompt-length <from-to>', 'tokens of a prompt')
        .argParser(lengths)
        .default({ from: 16, to: 48 }, '16-48'),
    )
    .addOption(
      new Option('--output-length <from-to>', 'tokens of an answer')
        .argParser(lengths)
        .default({ from: 64, to: 256 }, '64-256'),
    )
    .option('--queue-depth <n>', 'steps in flight of an engine', whole(1, 16), 2)
    .option('--max-num-batched-tokens <n>', 'token budget of a step', whole(1, 65_536), 256)
    .option('--step-time <time>', 'what a pass takes, as "10 ms + 60 us"; in place of that of --costs', parseStepTime)
    .option('--costs <file>', 'what things take, as "bench --lockstep --ranks 1 --json FILE" wrote it')
    .addOption(
      new Option('--duration <time>', 'virtual time for which clients send requests')
        .argParser(time)
        .default(10_000_000, '10s'),
    )
    .option('--warm-up <time>', 'virtual time that is not counted (default: a tenth of the duration)', time)
    .option('--no-shm-save', 'shm-flock: the workers save no rows, and all of them are missing')
    .option('--no-shm-read', 'shm-flock: the scheduler reads no rows, and all of them are missing')
    .addOption(
      new Option('--lock <scope>', 'shm-flock: engines of a node take one lock, or each takes one of its own')
        .choices(['engine', 'node'])
        .default('engine'),
    )
    .addOption(
      new Option('--dispatch <kind>', 'rows that a router sees (see bench --help)')
        .choices(['modular', 'naive', 'naive-shards'])
        .default('modular'),
    )
    .addOption(
      new Option('--real-ranks <which>', 'ranks that run their half and their device; of the others only the time')
        .choices(['first', 'all'])
        .default('first'),
    )
    .option(
      '--collective-timeout <s>',
      'the longest that a rank waits for the others in a pass',
      finite(0.001, 86_400),
      60,
    )
    .addOption(
      new Option('--fault <faults>', FAULT_FORMS).argParser(list((text) => parseFault(text).text)).default([], 'none'),
    )
    .addOption(
      new Option('--experiments', 'the five experiments of RFC vllm#38079 with shm-flock').conflicts([
        'design',
        'optIn',
        'shmSave',
        'shmRead',
        'scale',
        'seeds',
      ]),
    )
    .addOption(
      new Option('--scale <ranks>', 'a cluster of each number of ranks, as 16,64,256,1024,4096')
        .argParser(list(whole(1, MOST_RANKS)))
        .conflicts(['dataParallel', 'seeds']),
    )
    .option('--seeds <n>', 'a cluster of each seed, from --seed on', whole(1, 1_000_000))
    .addOption(
      new Option('--against <files>', 'virtual clusters beside ranks that "bench --lockstep --json FILE" ran')
        .argParser(list(String))
        .conflicts(['experiments', 'scale', 'seeds', 'preset', 'dataParallel', 'tensorParallel']),
    )
    .option('--seed <n>', 'of requests and of all that is drawn', whole(0, 2 ** 32 - 1), 0)
    .option('--jobs <n>', 'threads, each of which runs a cluster', whole(1, 256), availableParallelism())
    .option('--json', 'print every figure as JSON')
    .option('--csv <file>', 'write the figures to this file, a line for each cluster (RFC 4180)');
  return withRunFlags(command)
    .addHelpText('after', '\nExit code: 0 = every law kept, 1 = a law was broken, 2 = could not run, or stood still')
    .action(cluster);
}

async function cluster(flags: ClusterFlags, command: Command): Promise<void> {
  checkOutputs(csvFile(flags));
  if (flags.against !== undefined) return compareWithBench(flags.against, flags);
  const isGiven = (option: string): boolean => command.getOptionValueSource(option) === 'cli';
  const { mode, cells } = cellsOf(flags, isGiven);
  const ofCells = command.options.map((option) => option.attributeName()).filter((name) => !RUN_FLAGS.has(name));
  const given = givenFields(command, { mode: ['experiments', 'scale', 'seeds'], cells: ofCells });
  await runCampaign(clusterKind, { kind: 'cluster', mode, cells }, given, flags);
}

/** Options that say where a campaign runs and how it is told, and not what it is. */
const RUN_FLAGS: ReadonlySet<string> = new Set([
  'jobs',
  'json',
  'csv',
  'queue',
  'campaign',
  'shard',
  'part',
  'patience',
]);

function time(text: string): number {
  const read = microseconds(text);
  if (read !== null) return read;
  throw new InvalidArgumentError('Give a time as 10s or 500ms.');
}

const LONGEST = 1_000_000;

function lengths(text: string): { from: number; to: number } {
  const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  const read = { from: Number(from), to: Number(to) };
  if (read.from >= 1 && read.to >= read.from && read.to <= LONGEST) return read;
  throw new InvalidArgumentError(`Give FROM-TO with 1 ≤ FROM ≤ TO ≤ ${LONGEST}, as 16-48.`);
}
