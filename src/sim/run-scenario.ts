/** One scenario, from the first event to the verdict. */

import { installCopyMeter } from './laws/copy-meter.ts';
import type { Mark } from './coverage.ts';
import { EventHeap } from './virtual/event-heap.ts';
import { EventLog } from './event-log.ts';
import { DeclaredStall, Judge } from './laws/judge.ts';
import { gapsThatApply } from '../capture/designs.ts';
import { OffloadedEngine } from './offload/offloaded-engine.ts';
import { EnginePair } from './pd/engine-pair.ts';
import type { Scenario } from './scenario.ts';
import { routerOf } from './virtual/sim-kernels.ts';
import { Storm } from './storm.ts';
import type { TestedDesign } from './tested-design.ts';
import { Violation, type LawName } from './laws/violation.ts';
import { World } from './world.ts';

/** A run with more events counts as one that never ends. */
const MOST_EVENTS = 200_000;

/** The verdict of one run, and what the run went through. */
export type ScenarioResult = Readonly<{
  violation: Violation | null;
  /** How often each law was broken that the design gives up. */
  declared: ReadonlyMap<LawName, number>;
  marks: ReadonlySet<Mark>;
  numSteps: number;
  /** Of the event log, up to the violation. */
  hash: string;
  /** What happened, step by step; empty unless asked for. */
  lines: readonly string[];
}>;

/** Runs to the end, or to the first broken promise. Never throws for what the code under test does. */
export function runScenario(
  scenario: Scenario,
  tested: TestedDesign,
  { isTracing = false }: Readonly<{ isTracing?: boolean }> = {},
): ScenarioResult {
  const { pd, offload } = scenario;
  const judge = new Judge(gapsThatApply(tested.gaps, { isOffloading: offload !== undefined }));
  const log = new EventLog(isTracing);
  const marks = new Set<Mark>();
  const heap = new EventHeap();
  const uninstall = tested.mutation.install?.();
  const uninstallMeter = installCopyMeter();
  let run: EnginePair | OffloadedEngine | Storm | null = null;
  let violation: Violation | null = null;
  try {
    const context = { tested, router: routerOf(scenario.model), judge, log, marks };
    if (pd !== undefined) run = new EnginePair(scenario, pd, { run: context, clock: heap });
    else if (offload !== undefined) run = new OffloadedEngine(scenario, offload, { run: context, clock: heap });
    else run = new Storm(new World(scenario, context), tested, heap);
    let numEvents = 0;
    while (heap.runNext()) {
      numEvents += 1;
      if (numEvents > MOST_EVENTS) judge.stall('L8', `${MOST_EVENTS} events did not bring the run to its end`);
    }
    run.checkEnd();
  } catch (error) {
    violation = verdict(error, judge);
  } finally {
    uninstall?.();
    uninstallMeter();
  }
  return {
    violation,
    declared: judge.declared,
    marks,
    numSteps: run?.numSteps ?? 0,
    hash: log.hash,
    lines: log.lines,
  };
}

/** Says what a run's end by an exception means; `null`: the design has declared it. */
export function verdict(error: unknown, judge: Judge): Violation | null {
  if (error instanceof Violation) return error;
  if (error instanceof DeclaredStall) return null;
  const what = error instanceof Error ? `${error.name}: ${error.message}` : `threw ${String(error)}`;
  return new Violation('crash', 'L8', judge.step, what, error);
}
