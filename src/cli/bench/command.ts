/** `routed-experts bench`: what capture costs, each design against `off`, every row checked. */

import { writeFileSync } from 'node:fs';
import { SingleBar } from 'cli-progress';
import { Command, Option } from 'commander';
import { designNames } from '../../capture/designs.ts';
import {
  DEFAULT_PREFIX_ROWS,
  prefixRowsByName,
  prefixRowsNames,
  prefixRowsPolicies,
} from '../../capture/deltas/prefix-rows.ts';
import type { DesignReference } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { DRAFT_ACCEPTANCE_RATE } from '../../kernels/model/kernel-shape.ts';
import { DEFAULT_MODEL, MODEL_NAMES, modelPreset } from '../../kernels/model/model-presets.ts';
import { DEFAULT_CLOCK_TIMES, parseStepTime, stepTimeText } from '../../kernels/device/clock-times.ts';
import { prepareAdapters } from '../../kernels/device/open-device.ts';
import type { LoopMode } from '../../workload/arrivals.ts';
import { recordingWorkload } from '../../workload/traces/recording.ts';
import { workloadNames, workloads } from '../../workload/workloads.ts';
import { designReference, isDesignModule, loadDesign } from '../../worker/design-module.ts';
import { requireRows } from '../../worker/router-kinds.ts';
import { routerConfig } from '../router-flags.ts';
import { DEFAULT_STEP_TIMEOUT_MS } from '../../worker/thread/thread-executor.ts';
import { checkDraftFlags, finite, list, routerKernelsOption, whole } from '../options.ts';
import { benchDevice } from './bench-device.ts';
import { runBench } from './bench.ts';
import type { BenchOptions, OwnDesign } from './bench-options.ts';
import type { Defaults, Flags } from './settings.ts';
import { DEFAULTS, endingOf, faultOf, makeEngineConfig, makeWorkload } from './settings.ts';
import { recordedModel, recordingOf } from './recording-flags.ts';
import { renderTable, toJson } from './report.ts';
import type { Progress } from './pair-schedule.ts';

function byDevice(of: (defaults: Defaults) => number): string {
  const { gpu, clock, software } = DEFAULTS;
  return `(default: GPU ${of(gpu)}, clock ${of(clock)}, software adapters ${of(software)})`;
}

export function benchCommand(): Command {
  const described = Object.entries(workloads).map(([name, { description }]) => `  ${name.padEnd(8)} ${description}`);
  const policies = prefixRowsNames.map((name) => `  ${name.padEnd(13)} ${prefixRowsPolicies[name].summary}`);
  return new Command('bench')
    .description('Serve a workload with each capture design, check every returned row, compare with capture off')
    .addOption(
      new Option('--design <names>', `designs to compare with off, of ${designNames.join(', ')}; or modules: ./mine.ts`)
        .argParser(list(designReference))
        .default([...designNames], 'all'),
    )
    .addOption(
      new Option('--opt-in <shares>', 'shares of requests that ask for rows')
        .argParser(list(finite(0, 1)))
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
      '--step-time <time>',
      `what a step takes on the clock (default: "${stepTimeText(DEFAULT_CLOCK_TIMES)}", near gpt-oss-120b on an H100)`,
      parseStepTime,
    )
    .option('--workload <name>', `built-in workload: ${workloadNames.join(', ')}`, 'chat')
    .addOption(new Option('--trace <file>', 'serve a trace instead: Mooncake JSONL or Azure CSV').conflicts('workload'))
    .option('--requests <n>', `number of requests; of chat ${byDevice((d) => d.chat.requests)}`, whole(1))
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
      whole(1, 1_000_000),
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
      'steps in flight: 1 = synchronous, 2 and more = asynchronous scheduling',
      whole(1, 16),
      2,
    )
    .option('--ranks <n>', 'worker threads, each running every step', whole(1, 16), 1)
    .option('--block-size <n>', 'tokens per KV block', whole(1, 65_536), 16)
    .option('--num-blocks <n>', 'KV blocks (default: enough that nothing is preempted)', whole(2, 2 ** 24))
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
    .addHelpText(
      'after',
      `\nWorkloads:\n${described.join('\n')}\n\nPrefix rows (--prefix-rows):\n${policies.join('\n')}\n\n` +
        'Exit code: 0 = all rows right, 1 = a law was broken, 2 = could not run',
    )
    .action((flags: Flags, command: Command) => {
      checkDraftFlags(flags, command);
      return bench(flags);
    });
}

async function bench(flags: Flags): Promise<void> {
  const recording = recordingOf(flags.routing, flags.recording);
  const router = routerConfig(flags);
  for (const design of flags.design) requireRows(router, design);
  const designs = await loadDesigns(flags.design);
  const model =
    recording === null ? modelPreset(flags.model, flags.gateWidth) : recordedModel(recording, flags.gateWidth);
  await prepareAdapters();
  const device = await benchDevice(flags);
  const defaults = DEFAULTS[device.pace];
  const maxNumBatchedTokens = flags.maxNumBatchedTokens ?? defaults.maxNumBatchedTokens;
  const workload =
    recording === null ? makeWorkload(flags, defaults, model, maxNumBatchedTokens) : recordingWorkload(recording);
  const concurrency = Math.max(
    flags.concurrency ?? defaults.concurrency,
    flags.concurrency ? 1 : workload.minConcurrency,
  );
  const mode: LoopMode = flags.openLoop ? { kind: 'open' } : { kind: 'closed', concurrency };
  const engine = makeEngineConfig(flags, workload, mode, maxNumBatchedTokens);
  // A run of minutes must not end with a file that cannot be written.
  if (flags.json !== undefined) writeJson(flags.json, null);
  const progress = progressBar();
  try {
    const result = await runBench(
      {
        ...designs,
        optInShares: flags.optIn,
        ending: endingOf(flags, defaults),
        clockWarmUpMs: defaults.clockWarmUpMs,
        checksShaders: device.checksShaders,
        seed: flags.seed,
        workload,
        mode,
        abortShare: flags.abortShare,
        session: {
          numRanks: flags.ranks,
          model,
          engine,
          device: device.kind,
          adapter: device.adapter,
          ...(device.clockTimes === null ? {} : { clockTimes: device.clockTimes }),
          queueDepth: flags.queueDepth,
          ballastMs: flags.ballastMs ?? defaults.ballastMs,
          fault: faultOf(flags),
          stepTimeoutMs: flags.stepTimeout * 1e3,
          prefixRows: flags.prefixRows,
          draftAcceptanceRate: flags.draftAcceptanceRate,
          router,
          ...(recording === null ? {} : { routing: { kind: 'replay', recording } as const }),
        },
      },
      progress.update,
    );
    progress.stop();
    if (flags.json !== undefined) writeJson(flags.json, toJson(result));
    console.log(renderTable(result));
    if (result.problems.length > 0) process.exitCode = 1;
  } finally {
    progress.stop();
  }
}

/** Throws BAD_DESIGN, also for two modules that export designs of one name. */
async function loadDesigns(
  references: readonly DesignReference[],
): Promise<Pick<BenchOptions, 'designs' | 'ownDesigns'>> {
  const designs: string[] = [];
  const ownDesigns: Record<string, OwnDesign> = {};
  for (const reference of new Set(references)) {
    const { name, gaps } = await loadDesign(reference);
    if (Object.hasOwn(ownDesigns, name)) {
      throw RoutedExpertsError.of(
        'BAD_DESIGN',
        reference,
        `its name, "${name}", is that of ${ownDesigns[name]!.module}`,
      );
    }
    designs.push(name);
    if (isDesignModule(reference)) ownDesigns[name] = { module: reference, gaps };
  }
  return Object.keys(ownDesigns).length === 0 ? { designs } : { designs, ownDesigns };
}

function writeJson(file: string, value: unknown): void {
  try {
    writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be written: ${(error as Error).message}`);
  }
}

/** On stderr: a bar where somebody watches, otherwise a line now and then. */
function progressBar(): { update: (progress: Progress, what: string) => void; stop: () => void } {
  if (!process.stderr.isTTY) return { update: progressLog(), stop: () => {} };
  const bar = new SingleBar({ format: '{bar} {text}', stream: process.stderr, hideCursor: true });
  let isStarted = false;
  return {
    update: (progress, what) => {
      const text = progressText(progress, what);
      if (!isStarted) bar.start(progress.total, progress.done, { text });
      isStarted = true;
      bar.update(progress.done, { text });
    },
    stop: () => bar.stop(),
  };
}

/** A line at the start, and one for each tenth. */
function progressLog(): (progress: Progress, what: string) => void {
  let latest = -1;
  return (progress, what) => {
    const tenth = Math.floor((10 * progress.done) / progress.total);
    if (tenth > latest) console.error(progressText(progress, what));
    latest = Math.max(latest, tenth);
  };
}

function progressText({ done, total, unit, detail }: Progress, what: string): string {
  return `${unit} ${done} of ${total}: ${what}${detail}`;
}
