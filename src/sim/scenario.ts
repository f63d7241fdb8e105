/**
 * One run of the simulator as data: everything but the code. A scenario can be drawn from a seed, shrunk, saved as JSON
 * and run again. Times are in ticks of virtual time; a forward pass takes about a hundred.
 */

import type { EngineConfig, ModelConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { checkModel } from '../kernels/model/kernel-shape.ts';
import { validateEngineConfig } from '../engine/engine-config.ts';
import { FAULT_KINDS, type Fault } from './fault.ts';
import { checkOffloadScenario, type OffloadScenario } from './offload/offload-scenario.ts';
import { checkPdScenario, type PdScenario } from './pd/pd-scenario.ts';
import { checkStageScenario, type StageScenario } from './stages/stage-scenario.ts';

/** A request of a storm, and when it comes. */
export type ScenarioRequest = Readonly<{
  at: number;
  id: string;
  prompt: readonly number[];
  maxTokens: number;
  minTokens: number;
  eos: number | null;
  stops: readonly number[];
  /** Whether the request opts in to routed experts. */
  rows: boolean;
  /** Rows before this position are not wanted. */
  rowsFrom: number;
  priority: number;
  salt: string | null;
}>;

/** Durations are in ticks. A share in [0, 1] of the steps takes longer by the factor. */
export type Timing = Readonly<{
  pass: number;
  passJitter: number;
  map: number;
  mapJitter: number;
  /** Between engine and worker, each way. */
  wire: number;
  /** Between an event and the step that is begun for it. */
  engine: number;
  /** Between an output's arrival and its update. */
  update: number;
  respawn: number;
  slowPassShare: number;
  slowPassFactor: number;
  lateMapShare: number;
  lateMapFactor: number;
}>;

/** A storm: an engine, its surroundings, the requests and the faults. */
export type Scenario = Readonly<{
  /** The seed of the random streams that the run draws from. */
  seed: number;
  model: ModelConfig;
  engine: EngineConfig;
  /** Steps in flight at once. */
  queueDepth: number;
  /** Readback buffers of a rank. */
  ringDepth: number;
  /** Of each stage. */
  numRanks: number;
  maxRestarts: number;
  /** Each forward pass folds its epoch into keys and rows, so that a row tells which pass computed it. */
  hasEpochs: boolean;
  /** `false`: the consumer reads no rows and gives no buffer back before the end. */
  readsAtOnce: boolean;
  timing: Timing;
  requests: readonly ScenarioRequest[];
  faults: readonly Fault[];
  /** A prefill engine in front: `engine` and `faults` are those of the decode engine. Absent: one engine does both. */
  pd?: PdScenario;
  /** Evicted KV goes to host memory and files, and comes back. Absent: it is gone. Not with `pd`. */
  offload?: OffloadScenario;
  /** A pipeline of stages. Absent: each rank has all layers. */
  stages?: StageScenario;
}>;

const LIMIT = { requests: 10_000, faults: 10_000, prompt: 1_000_000 } as const;

/** Reads what `JSON.stringify` wrote. Throws BAD_FILE, with the file's name, for anything else. */
export function parseScenario(text: string, file: string): Scenario {
  const bad = (problem: string): Error => RoutedExpertsError.of('BAD_FILE', file, problem);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad((error as Error).message);
  }
  if (typeof value !== 'object' || value === null) throw bad('is not a scenario');
  const scenario = value as Scenario;
  const wholes = ['seed', 'queueDepth', 'ringDepth', 'numRanks', 'maxRestarts'] as const;
  for (const name of wholes) {
    const least = name === 'seed' || name === 'maxRestarts' ? 0 : 1;
    if (!Number.isInteger(scenario[name]) || scenario[name] < least) {
      throw bad(`"${name}" is ${String(scenario[name])}, not a whole number ≥ ${least}`);
    }
  }
  for (const name of ['hasEpochs', 'readsAtOnce'] as const) {
    if (typeof scenario[name] !== 'boolean') throw bad(`"${name}" is neither true nor false`);
  }
  for (const name of ['requests', 'faults'] as const) {
    if (!Array.isArray(scenario[name]) || scenario[name].length > LIMIT[name]) {
      throw bad(`"${name}" is not a list of at most ${LIMIT[name]}`);
    }
  }
  const { model, timing, engine } = scenario;
  if ([model, timing, engine].some((part) => typeof part !== 'object' || part === null))
    throw bad('has no model, engine or timing');
  if (Object.values(timing).some((ticks) => typeof ticks !== 'number' || !(ticks >= 0))) {
    throw bad('"timing" holds something that is no number ≥ 0');
  }
  for (const request of scenario.requests) {
    if (typeof request.id !== 'string' || !Array.isArray(request.prompt) || request.prompt.length > LIMIT.prompt) {
      throw bad('a request without id or prompt');
    }
  }
  for (const fault of [...scenario.faults, ...(scenario.pd?.faults ?? [])]) {
    if (!FAULT_KINDS.includes(fault?.kind) || typeof fault.when !== 'object')
      throw bad('a fault of unknown kind or time');
    if (fault.kind === 'slow-lock-holder' && !(fault.ticks >= 0)) throw bad('a lock holder without "ticks" ≥ 0');
  }
  checkModel(model);
  validateEngineConfig(engine);
  if (scenario.stages !== undefined) checkStageScenario(scenario, bad);
  if (scenario.pd !== undefined) checkPdScenario(scenario.pd, engine, bad);
  if (scenario.offload !== undefined) checkOffloadScenario(scenario.offload, bad);
  if (scenario.offload !== undefined && scenario.pd !== undefined) throw bad('has both "offload" and "pd"');
  return scenario;
}
