/** `routed-experts bench`: what capture costs, each design against `off`, every row checked. */

import { Command, Option } from 'commander';
import { designNames } from '../../capture/designs.ts';
import {
  DEFAULT_PREFIX_ROWS,
  prefixRowsByName,
  prefixRowsNames,
  prefixRowsPolicies,
} from '../../capture/deltas/prefix-rows.ts';
import { DRAFT_ACCEPTANCE_RATE } from '../../kernels/model/kernel-shape.ts';
import { DEFAULT_MODEL, MODEL_NAMES } from '../../kernels/model/model-presets.ts';
import { DEFAULT_CLOCK_TIMES, parseStepTime, stepTimeText } from '../../kernels/device/clock/clock-times.ts';
import { workloadNames, workloads } from '../../workload/workloads.ts';
import { designReference } from '../../worker/design-module.ts';
import { DEFAULT_STEP_TIMEOUT_MS } from '../../worker/thread/thread-executor.ts';
import { refuseRunFlags, withRunFlags, type RunFlags } from '../campaign/run-flags.ts';
import { checkDraftFlags, finite, list, routerKernelsOption, rowsLayersOption, whole } from '../options.ts';
import { pipelineParallelOption, pipelineSplitOption } from '../options.ts';
import { runBench } from './bench.ts';
import { parseLayersXK } from './flags/model-flags.ts';
import { prepareBench } from './flags/prepare-bench.ts';
import { experimentsJson, renderExperiments } from './experiments/experiments-report.ts';
import { runExperiments } from './experiments/run-experiments.ts';
import { checkOutputs, writeOutputs } from './report/output-files.ts';
import { withProgress } from './report/progress-display.ts';
import { reportCells } from './report/cell-report.ts';
import { toCsv } from './report/csv.ts';
import { metricsHelp } from './report/terminal.ts';
import { DEFAULTS, type Defaults, type Flags } from './settings.ts';
import { renderTable, toJson } from './report.ts';
import { LIMITS, parseSweep, sweepHelp } from './flags/sweep.ts';
import { runSweep, runSweepCampaign } from './sweep/run-sweep.ts';

/** Two cores carry as many on the clock. */
const EXPERIMENT_RANKS = 4;

function byDevice(of: (defaults: Defaults) => number): string {
  const { gpu, clock, software } = DEFAULTS;
  return `(default: GPU ${of(gpu)}, clock ${of(clock)}, software adapters ${of(software)})`;
}

export function benchCommand(): Command {
  const described = Object.entries(workloads).map(([name, { description }]) => `  ${name.padEnd(8)} ${description}`);
  const policies = prefixRowsNames.map((name) => `  ${name.padEnd(13)} ${prefixRowsPolicies[name].summary}`);
  const command = new Command('bench')
    .description('Serve a workload with each capture design, check every returned row, compare with capture off')
    .addOption(
      new Option('--design <names>', `designs to compare with off, of ${designNames.join(', ')}; or modules: ./mine.ts`)
        .argParser(list(designReference))
        .default([...designNames], 'all'),
    )
    .addOption(
      new Option('--opt-in <shares>', 'shares of requests that ask for rows')
        .argParser(list(LIMITS.optIn))
        .default([0, 0.1, 1], '0,0.1,1'),
    )
    .option(
      '--repeats <n>',
      'this many pairs of each cell, and no more for a narrower interval (of a trace: 1; in an open loop: 5)',
      whole(1, 1000),
    )
    .addOption(
      new Option('--time-budget <s>', `seconds that all of it may take ${byDevice((d) => d.timeBudgetS)}`)
        .argParser(finite(1, 86_400))
        .conflicts('repeats'),
    )
    .option('--model <name>', `model shape: ${MODEL_NAMES.join(', ')}`, DEFAULT_MODEL)
    .option('--layers-x-k <LxK>', 'layers and K in place of the model’s own, as 61x8', parseLayersXK)
    .addOption(
      new Option(
        '--device <kind>',
        'auto: a GPU, else the clock; webgpu: also a software adapter; clock: TypeScript kernels, and steps that ' +
          'take the modelled time of a GPU (--step-time); cpu: the same kernels, as fast as they are',
      )
        .choices(['auto', 'webgpu', 'clock', 'cpu'])
        .default('auto'),
    )
    .option('--adapter <name>', 'part of the name of the WebGPU adapter to use (see "devices")')
    .option(
      '--gpus <numbers>',
      'GPUs that the ranks are spread over (default: all; see "devices")',
      list(whole(0, 255)),
    )
    .option(
      '--step-time <time>',
      `what a step takes on the clock (default: "${stepTimeText(DEFAULT_CLOCK_TIMES)}", near gpt-oss-120b on an H100)`,
      parseStepTime,
    )
    .option('--workload <name>', `built-in workload: ${workloadNames.join(', ')}`, 'chat')
    .addOption(new Option('--trace <file>', 'serve a trace instead: Mooncake JSONL or Azure CSV').conflicts('workload'))
    .option('--requests <n>', `number of requests; of chat ${byDevice((d) => d.chat.requests)}`, whole(1))
    .option('--prompt-length <n>', 'tokens of each prompt (with --workload fixed)', LIMITS.promptLength)
    .option('--scale-lengths <x>', 'divide the lengths of a trace', finite(1), 1)
    .option(
      '--length-scale <x>',
      `multiply the lengths of a built-in workload (default: 1; of chat ${DEFAULTS.gpu.chat.lengthScale} on a GPU)`,
      finite(1e-6),
    )
    .option('--speedup <x>', 'divide the arrival times of a trace (with --open-loop)', finite(1e-9), 1)
    .option(
      '--concurrency <n>',
      `closed loop: requests in flight ${byDevice((d) => d.concurrency)}`,
      LIMITS.concurrency,
    )
    .option('--open-loop', 'submit requests at their timestamps')
    .option('--abort-share <x>', 'share of requests aborted at a random moment', finite(0, 1), 0)
    .option(
      '--ballast-ms <ms>',
      `stretch each forward pass on the device ${byDevice((d) => d.ballastMs)}`,
      finite(0, 60_000),
    )
    .option('--gate-width <n>', 'multiplications per router logit, a multiple of 8', whole(8, 248), 8)
    .option(
      '--queue-depth <n>',
      'steps in flight: 1 = synchronous, 2 and more = asynchronous scheduling (default: 2, or one for each stage)',
      LIMITS.queueDepth,
    )
    .addOption(pipelineParallelOption())
    .addOption(pipelineSplitOption())
    .option('--ranks <n>', 'worker threads in all, each running every step of its engine', LIMITS.ranks, 1)
    .option('--lockstep', 'each step ends when all ranks have run it, as in the all-to-all of the experts')
    .option(
      '--collective-timeout <s>',
      'the longest that a rank waits for the others in a step (with --lockstep; default: 60, or the step time-out)',
      finite(0.001, 86_400),
    )
    .option(
      '--data-parallel <n>',
      'engines that share the ranks and the requests, each with a thread of its own; all ranks run in lockstep',
      whole(1, 16),
      1,
    )
    .addOption(
      new Option(
        '--dispatch <kind>',
        'rows that a router sees with --data-parallel: modular = its engine’s, naive = those of all engines, ' +
          'naive-shards = the same, padded to shards of the ranks (sequence parallelism), modular-shards = a shard ' +
          'of its engine’s, and an all-gather behind it',
      )
        .choices(['modular', 'naive', 'naive-shards', 'modular-shards'])
        .default('modular'),
    )
    .option('--block-size <n>', 'tokens per KV block', whole(1, 65_536), 16)
    .option('--num-blocks <n>', 'KV blocks (default: enough that nothing is preempted)', whole(2, 2 ** 24))
    .option(
      '--kv-offload-blocks <n>',
      'KV blocks kept in host memory when the pool gives them up',
      whole(0, 2 ** 24),
      0,
    )
    .option(
      '--max-num-seqs <n>',
      'requests running at once (default: the concurrency, 256 in an open loop)',
      whole(1, 65_535),
    )
    .option(
      '--max-num-batched-tokens <n>',
      `token budget of a step ${byDevice((d) => d.maxNumBatchedTokens)}`,
      whole(1, 2 ** 24),
    )
    .option('--max-model-len <n>', 'prompt and output together (default: what the workload needs)', whole(2, 2 ** 28))
    .addOption(new Option('--policy <name>', 'scheduling policy').choices(['fcfs', 'priority']).default('fcfs'))
    .option('--no-prefix-caching', 'do not reuse the KV of equal prefixes')
    .option(
      '--prefix-rows <policy>',
      `rows of prefix-cached tokens under deltas: ${prefixRowsNames.join(', ')}`,
      prefixRowsByName,
      DEFAULT_PREFIX_ROWS,
    )
    .addOption(rowsLayersOption())
    .option('--no-shm-save', 'shm-flock: the workers save no rows, and all of them are missing')
    .option('--no-shm-read', 'shm-flock: the scheduler reads no rows, and all of them are missing')
    .addOption(
      new Option(
        '--experiments',
        'the five experiments of RFC vllm#38079 with shm-flock and ranks in lockstep: off, on, without save, without ' +
          'read, without both (4 ranks unless --ranks says otherwise)',
      ).conflicts(['design', 'optIn', 'sweep', 'csv', 'shmSave', 'shmRead', 'recording']),
    )
    .addOption(
      new Option('--routing <source>', 'where rows and tokens come from: the router, or --recording')
        .choices(['deterministic', 'replay'])
        .default('deterministic'),
    )
    .option(
      '--recording <file>',
      'serve the requests of this recording, and return its tokens and rows (with --routing replay)',
    )
    .addOption(
      new Option('--router <kind>', 'modular, or gate, selection and expert work in one kernel')
        .choices(['modular', 'monolithic'])
        .default('modular'),
    )
    .option('--no-routing-replay', 'without routing_replay_out: a monolithic router then writes no rows at all')
    .addOption(routerKernelsOption())
    .option('--num-speculative-tokens <n>', 'draft tokens per request and step', whole(0, 64), 0)
    .option(
      '--draft-acceptance-rate <x>',
      'how likely a draft is right (with --num-speculative-tokens)',
      finite(0, 1),
      DRAFT_ACCEPTANCE_RATE,
    )
    .option('--lose-device-at <step>', 'fault: destroy the device when this step arrives', whole(0))
    .option('--kill-worker-at <step>', 'fault: end the worker thread when this step arrives', whole(0))
    .option('--hang-worker-at <step>', 'fault: let the worker thread stand still when this step arrives', whole(0))
    .option('--fault-rank <n>', 'the rank that a fault happens to', whole(0, 15), 0)
    .option(
      '--step-timeout <s>',
      'a worker that does not reply for this long is lost; 0 = wait for ever',
      finite(0, 86_400),
      DEFAULT_STEP_TIMEOUT_MS / 1e3,
    )
    .option('--seed <n>', 'of workload, opt-in, aborts and order of runs', whole(0, 2 ** 32 - 1), 0)
    .option('--json <file>', 'write every figure, with its environment, to this file')
    .option('--csv <file>', 'write every figure to this file, a line for each design and share (RFC 4180)')
    .option(
      '--sweep <parameter=values>',
      'the bench once for each value, as ranks=1,2,4; they share the time (see below)',
      parseSweep,
    )
    .addHelpText(
      'after',
      `\nWorkloads:\n${described.join('\n')}\n\nPrefix rows (--prefix-rows):\n${policies.join('\n')}\n\n` +
        `Sweeps (--sweep):\n${sweepHelp()}\n\n` +
        `Metrics (*: in the table; with their columns of --csv):\n${metricsHelp()}\n\n` +
        'A sweep with --queue, --campaign or --shard is a campaign, of a shard for each value (docs/campaigns.md).\n' +
        'Wherever it runs, its cells, requests and verified rows are the same. Its figures are not: each carries\n' +
        'the machine that measured it. All designs of a value run on one machine.\n\n' +
        'Exit code: 0 = all rows right, 1 = a law was broken, 2 = could not run',
    )
    .action((flags: Flags & RunFlags, self: Command) => {
      checkDraftFlags(flags, self);
      if (flags.experiments) {
        refuseRunFlags(flags, '--experiments');
        return experimentsBench(flags, self.getOptionValueSource('ranks') === 'cli');
      }
      if ([flags.queue, flags.campaign, flags.shard, flags.part].some((given) => given !== undefined)) {
        return runSweepCampaign(flags, self);
      }
      return flags.sweep === undefined ? bench(flags) : runSweep(flags.sweep, flags, self);
    });
  return withRunFlags(command);
}

async function bench(flags: Flags): Promise<void> {
  const options = await prepareBench(flags);
  checkOutputs(flags);
  const result = await withProgress((progress) => runBench(options, progress.update));
  writeOutputs(flags, {
    json: toJson(result),
    csv: toCsv(reportCells(result).map((cell) => ({ before: [], cell }))),
  });
  console.log(renderTable(result));
  if (result.problems.length > 0) process.exitCode = 1;
}

async function experimentsBench(flags: Flags, isRanksGiven: boolean): Promise<void> {
  const ranks = isRanksGiven ? flags.ranks : EXPERIMENT_RANKS;
  const options = await prepareBench({ ...flags, ranks, lockstep: true, design: ['shm-flock'], optIn: [1] });
  checkOutputs(flags);
  const result = await withProgress((progress) => runExperiments(options, progress.update));
  writeOutputs(flags, { json: experimentsJson(result), csv: '' });
  console.log(renderExperiments(result));
  if (result.problems.length > 0) process.exitCode = 1;
}
