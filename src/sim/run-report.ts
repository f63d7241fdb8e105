/** A run as a reader wants it: the surroundings, what each part did in which step, and what was expected instead. */

import type { CopyTiming, OffloadScenario } from './offload/offload-scenario.ts';
import type { PdScenario } from './pd/pd-scenario.ts';
import { runScenario } from './run-scenario.ts';
import { describeMoment, type Fault } from './fault.ts';
import type { Scenario } from './scenario.ts';
import type { TestedDesign } from './tested-design.ts';

/** Lines of code that are shown of an exception. */
const MOST_PLACES = 3;

/** Returns lines without their newlines. A line of an event begins with the number of the step begun last. */
export function reportRun(scenario: Scenario, tested: TestedDesign): string[] {
  const { violation, lines, hash } = runScenario(scenario, tested, { isTracing: true });
  const { engine, queueDepth, ringDepth, numRanks, model } = scenario;
  const features = [
    engine.asyncScheduling ? 'asynchronous' : 'synchronous',
    `${queueDepth} in flight`,
    `${ringDepth} ring slots`,
    ...(numRanks > 1 ? [`${numRanks} ranks`] : []),
    ...(scenario.stages === undefined ? [] : [`stages of ${scenario.stages.split.join(' + ')} layers`]),
    ...(engine.enablePrefixCaching ? ['prefix cache'] : []),
    ...(engine.numSpeculativeTokens > 0 ? [`${engine.numSpeculativeTokens} drafts`] : []),
    ...(scenario.hasEpochs ? ['epochs'] : []),
  ];
  return [
    `${tested.name}: ${engine.numBlocks - 1} blocks of ${engine.blockSize}, ${engine.maxNumSeqs} sequences, ` +
      `${engine.maxNumBatchedTokens} tokens a step, ${model.numLayers} layers, ${model.topK} of ` +
      `${model.numExperts} experts; ${features.join(', ')}`,
    ...(scenario.pd === undefined ? [] : describePrefill(scenario.pd)),
    ...(scenario.offload === undefined ? [] : describeTier(scenario.offload)),
    ...scenario.faults.map((fault) => `fault: ${describeFault(fault)}`),
    '  step',
    ...lines,
    violation === null
      ? `all laws kept; event log ${hash}`
      : `${violation.law} broken (${violation.kind}): ${violation.message}`,
    ...(violation === null ? [] : placesOf(violation.cause)),
  ];
}

/** The lines of code that an exception came through, the innermost first. */
function placesOf(cause: unknown): string[] {
  if (!(cause instanceof Error)) return [];
  const frames = (cause.stack ?? '').split('\n').filter((line) => line.trimStart().startsWith('at '));
  return frames.slice(0, MOST_PLACES);
}

function describePrefill({
  engine,
  queueDepth,
  numRanks = 1,
  rows,
  onLoadFailure,
  leaseTicks,
  loadTicks,
  link,
  proxy,
  faults,
}: PdScenario): string[] {
  return [
    `P: ${engine.numBlocks - 1} blocks of ${engine.blockSize}, ${engine.maxNumSeqs} sequences, ` +
      `${engine.maxNumBatchedTokens} tokens a step, ${queueDepth} in flight, ${numRanks} ranks; ` +
      `rows ${rows}, leases of ${leaseTicks}, loads of at most ${loadTicks}, else ${onLoadFailure}`,
    `link: ${link.delay} to ${link.delay + link.jitter}, ${link.slowShare} of them ${link.slowFactor} times as ` +
      `long, ${link.lostShare} lost, ${link.corruptShare} garbled`,
    ...(proxy === undefined
      ? []
      : [`proxy: waits ${proxy.patienceTicks} for P, ${proxy.lostShare} of its answers lost`]),
    ...faults.map((fault) => `fault of P: ${describeFault(fault)}`),
  ];
}

function timesOf({ ticks, jitter, slowShare, slowFactor }: CopyTiming): string {
  return `${ticks} to ${ticks + jitter}, ${slowShare} of them ${slowFactor} times as long`;
}

function describeTier({ hostBlocks, mostCopies, copy, failedCopyShare, files }: OffloadScenario): string[] {
  return [
    `host memory: ${hostBlocks} blocks; copies take ${timesOf(copy)}, at most ${mostCopies} at once, ` +
      `${failedCopyShare} of them fail`,
    ...(files === null
      ? []
      : [
          `files: ${files.blocks} blocks; they take ${timesOf(files.timing)}; ${files.failedWriteShare} are not ` +
            `written, ${files.failedReadShare} are not what was written`,
        ]),
  ];
}

function describeFault(fault: Fault): string {
  const when = describeMoment(fault.when);
  switch (fault.kind) {
    case 'abort':
      return `${when}, a client aborts ${fault.ids.map((id) => `"${id}"`).join(', ')}`;
    case 'reset-cache':
      return `${when}, the prefix cache is reset${fault.preempt ? ' and running requests are preempted' : ''}`;
    case 'kill':
      return `${when}, rank ${fault.rank} dies`;
    case 'slow-lock-holder':
      return `${when}, a process holds the lock of shared memory for ${fault.ticks} ticks`;
    default:
      return fault satisfies never;
  }
}
