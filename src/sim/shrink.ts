/** Makes a failing scenario small: leaves out everything without which the same promise is still broken. */

import type { EngineConfig } from '../contract/config.ts';
import type { OffloadScenario } from './offload/offload-scenario.ts';
import type { PdScenario } from './pd/pd-scenario.ts';
import { runScenario } from './run-scenario.ts';
import type { Fault } from './fault.ts';
import type { Scenario, ScenarioRequest } from './scenario.ts';
import type { TestedDesign } from './tested-design.ts';
import type { Violation } from './laws/violation.ts';

/** Runs that shrinking may take. */
const MOST_RUNS = 3000;

/** The smallest scenario that was found to break the same law in the same way. */
export type Shrunk = Readonly<{ scenario: Scenario; violation: Violation; numRuns: number }>;

/** Returns `null` if the scenario breaks nothing. */
export function shrink(scenario: Scenario, tested: TestedDesign): Shrunk | null {
  const first = runScenario(scenario, tested).violation;
  if (first === null) return null;
  let best: Shrunk = { scenario, violation: first, numRuns: 1 };
  let numRuns = 1;
  for (let before: Scenario | null = null; before !== best.scenario && numRuns < MOST_RUNS;) {
    before = best.scenario;
    // Candidates are made from the best scenario so far, so that the next one follows once a candidate was taken.
    for (let i = 0; numRuns < MOST_RUNS; i += 1) {
      const candidate = candidateOf(best.scenario, i);
      if (candidate === END) break;
      if (candidate === SAME) continue;
      numRuns += 1;
      const { violation } = runScenario(candidate, tested);
      if (violation === null || signature(violation) !== signature(first)) continue;
      best = { scenario: candidate, violation, numRuns };
      i -= 1;
    }
  }
  return { ...best, numRuns };
}

/**
 * Two violations with one signature count as the same bug: law, kind, and the message without its numbers and names.
 */
function signature({ kind, law, message }: Violation): string {
  const words = message.replaceAll(/"[^"]*"|\[[^\]]*\]|#?\d+/g, '').split(' ');
  return `${kind} ${law} ${kind === 'wrong' ? '' : words.slice(0, 8).join(' ')}`;
}

const END = 'end';
const SAME = 'same';

/** The i-th way to make a scenario smaller; SAME where it changes nothing. Big cuts come first. */
function candidateOf(scenario: Scenario, i: number): Scenario | typeof END | typeof SAME {
  let rest = i;
  const { requests, faults } = scenario;
  if (rest < requests.length) return requests.length === 1 ? SAME : withoutRequest(scenario, rest);
  rest -= requests.length;
  if (rest < faults.length) return { ...scenario, faults: faults.filter((_, at) => at !== rest) };
  rest -= faults.length;
  if (rest < WHOLE.length) return changed(scenario, WHOLE[rest]!(scenario));
  rest -= WHOLE.length;
  if (rest < requests.length * REQUEST.length) {
    const at = Math.floor(rest / REQUEST.length);
    const request = requests[at]!;
    const smaller = REQUEST[rest % REQUEST.length]!(request);
    if (JSON.stringify(smaller) === JSON.stringify(request)) return SAME;
    return { ...scenario, requests: requests.map((each, place) => (place === at ? smaller : each)) };
  }
  rest -= requests.length * REQUEST.length;
  if (rest < faults.length * FAULT.length) {
    const smaller = smallerFaults(faults, rest);
    return smaller === SAME ? SAME : { ...scenario, faults: smaller };
  }
  rest -= faults.length * FAULT.length;
  if (rest < STAGES.length) return scenario.stages === undefined ? SAME : changed(scenario, STAGES[rest]!(scenario));
  rest -= STAGES.length;
  if (scenario.offload !== undefined) return withPlainerTier(scenario, scenario.offload, rest);
  const { pd, ...alone } = scenario;
  if (pd === undefined) return END;
  // One engine is less than two; then the other engine and the link are made plainer.
  if (rest === 0) return alone;
  rest -= 1;
  if (rest < pd.faults.length) return { ...scenario, pd: { ...pd, faults: pd.faults.filter((_, at) => at !== rest) } };
  rest -= pd.faults.length;
  if (rest < pd.faults.length * FAULT.length) {
    const smaller = smallerFaults(pd.faults, rest);
    return smaller === SAME ? SAME : { ...scenario, pd: { ...pd, faults: smaller } };
  }
  rest -= pd.faults.length * FAULT.length;
  if (rest < requests.length) {
    const { id } = requests[rest]!;
    return pd.direct.includes(id) ? SAME : { ...scenario, pd: { ...pd, direct: [...pd.direct, id] } };
  }
  rest -= requests.length;
  if (rest < PREFILL.length) return changed(scenario, { ...scenario, pd: PREFILL[rest]!(pd) });
  return END;
}

/** No KV outside the device is less than some; then the tier is made plainer. */
function withPlainerTier(
  scenario: Scenario,
  offload: OffloadScenario,
  choice: number,
): Scenario | typeof END | typeof SAME {
  if (choice === 0) {
    const { offload: _, ...alone } = scenario;
    return alone;
  }
  const plainer = TIER[choice - 1];
  return plainer === undefined ? END : changed(scenario, { ...scenario, offload: plainer(offload) });
}

function smallerFaults(faults: readonly Fault[], choice: number): Fault[] | typeof SAME {
  const at = Math.floor(choice / FAULT.length);
  const fault = faults[at]!;
  const smaller = FAULT[choice % FAULT.length]!(fault);
  if (JSON.stringify(smaller) === JSON.stringify(fault)) return SAME;
  return faults.map((each, place) => (place === at ? smaller : each));
}

function withoutRequest(scenario: Scenario, at: number): Scenario {
  const gone = scenario.requests[at]!.id;
  const requests = scenario.requests.filter((_, place) => place !== at);
  if (requests.some(({ id }) => id === gone)) return { ...scenario, requests };
  const faults = scenario.faults.filter((fault) => fault.kind !== 'abort' || fault.ids.some((id) => id !== gone));
  return { ...scenario, requests, faults };
}

function changed(scenario: Scenario, candidate: Scenario): Scenario | typeof SAME {
  return JSON.stringify(candidate) === JSON.stringify(scenario) ? SAME : candidate;
}

/** Ways to make a pipeline plainer: without it, with two stages, with equal ones. */
const STAGES: readonly ((scenario: Scenario) => Scenario)[] = [
  (s) => {
    const { stages: _stages, ...whole } = s;
    return { ...whole, engine: { ...s.engine, pipelineParallelSize: 1 } };
  },
  (s) => {
    const [first, ...others] = s.stages!.split;
    const split = [first!, others.reduce((sum, layers) => sum + layers, 0)];
    return { ...s, engine: { ...s.engine, pipelineParallelSize: 2 }, stages: { ...s.stages!, split } };
  },
  (s) => ({ ...s, stages: { ...s.stages!, slowFactor: 1 } }),
  (s) => ({ ...s, stages: { ...s.stages!, handOver: 0, handOverJitter: 0 } }),
];

/** Ways to make the surroundings plainer. */
const WHOLE: readonly ((scenario: Scenario) => Scenario)[] = [
  (s) => ({ ...s, numRanks: 1 }),
  (s) => ({ ...s, hasEpochs: false }),
  (s) => ({ ...s, readsAtOnce: true }),
  (s) => ({ ...s, queueDepth: Math.max(1, s.queueDepth - 1) }),
  (s) => ({ ...s, ringDepth: s.queueDepth + 1 }),
  (s) => ({ ...s, timing: { ...s.timing, slowPassShare: 0, lateMapShare: 0 } }),
  (s) => ({ ...s, timing: { ...s.timing, passJitter: 0, mapJitter: 0 } }),
  (s) => ({ ...s, timing: { ...s.timing, map: 1, wire: 0, engine: 0, update: 0, respawn: 1 } }),
  (s) => ({ ...s, engine: { ...s.engine, numSpeculativeTokens: 0 } }),
  (s) => ({ ...s, engine: { ...s.engine, numSpeculativeTokens: Math.min(1, s.engine.numSpeculativeTokens) } }),
  (s) => ({ ...s, engine: { ...s.engine, longPrefillTokenThreshold: 0, watermark: 0 } }),
  (s) => ({ ...s, engine: { ...s.engine, policy: 'fcfs' } }),
  (s) => ({ ...s, engine: { ...s.engine, reserveFullIsl: false } }),
  (s) => ({ ...s, engine: { ...s.engine, asyncScheduling: false } }),
  (s) => ({ ...s, engine: { ...s.engine, enablePrefixCaching: false } }),
  (s) => ({ ...s, engine: { ...s.engine, maxNumBatchedTokens: s.engine.maxModelLen } }),
  (s) => ({ ...s, engine: { ...s.engine, maxNumSeqs: Math.max(1, s.engine.maxNumSeqs - 1) } }),
  (s) => ({ ...s, engine: { ...s.engine, numBlocks: Math.max(2, s.engine.numBlocks - 1) } }),
];

const roomy = (engine: EngineConfig): EngineConfig => ({
  ...engine,
  maxNumBatchedTokens: engine.maxModelLen,
  numSpeculativeTokens: 0,
  longPrefillTokenThreshold: 0,
  watermark: 0,
  policy: 'fcfs',
  asyncScheduling: false,
});

/** … and those of the prefill engine. */
const PREFILL: readonly ((pd: PdScenario) => PdScenario)[] = [
  (pd) => ({ ...pd, link: { ...pd.link, lostShare: 0, corruptShare: 0, slowShare: 0 } }),
  (pd) => ({ ...pd, link: { ...pd.link, jitter: 0 } }),
  (pd) => ({ ...pd, link: { ...pd.link, delay: 1, jitter: 0, slowShare: 0 } }),
  (pd) => ({ ...pd, leaseTicks: 100_000 }),
  (pd) => ({ ...pd, loadTicks: 100_000 }),
  (pd) => ({ ...pd, rows: 'with-kv' }),
  (pd) => ({ ...pd, queueDepth: 1, ringDepth: 2 }),
  (pd) => ({ ...pd, numRanks: 1 }),
  (pd) => ({ ...pd, readTicks: 0 }),
  (pd) => ({ ...pd, rowless: [] }),
  (pd) => (pd.proxy === undefined ? pd : { ...pd, proxy: { lostShare: 0, patienceTicks: 100_000 } }),
  (pd) => ({ ...pd, engine: roomy(pd.engine) }),
  (pd) => ({ ...pd, engine: { ...pd.engine, enablePrefixCaching: false } }),
  (pd) => ({ ...pd, engine: { ...pd.engine, numBlocks: Math.max(2, pd.engine.numBlocks - 1) } }),
];

/** … and those of the tier. */
const TIER: readonly ((offload: OffloadScenario) => OffloadScenario)[] = [
  (tier) => ({ ...tier, files: null }),
  (tier) => ({ ...tier, failedCopyShare: 0 }),
  (tier) => ({ ...tier, copy: { ticks: 1, jitter: 0, slowShare: 0, slowFactor: 1 } }),
  (tier) => ({ ...tier, copy: { ...tier.copy, jitter: 0, slowShare: 0 } }),
  (tier) => ({ ...tier, hostBlocks: 1000 }),
  (tier) => (tier.files === null ? tier : { ...tier, files: { ...tier.files, failedReadShare: 0 } }),
  (tier) => (tier.files === null ? tier : { ...tier, files: { ...tier.files, failedWriteShare: 0, blocks: 1000 } }),
];

const REQUEST: readonly ((request: ScenarioRequest) => ScenarioRequest)[] = [
  (r) => ({ ...r, at: 0 }),
  (r) => ({ ...r, at: Math.floor(r.at / 2) }),
  (r) => ({ ...r, rows: false }),
  (r) => ({ ...r, rowsFrom: 0 }),
  (r) => ({ ...r, eos: null }),
  (r) => ({ ...r, stops: [] }),
  (r) => ({ ...r, minTokens: 0 }),
  (r) => ({ ...r, priority: 0 }),
  (r) => ({ ...r, salt: null }),
  (r) => ({ ...r, maxTokens: Math.max(1, Math.floor(r.maxTokens / 2)), minTokens: 0 }),
  (r) => ({ ...r, maxTokens: Math.max(1, r.maxTokens - 1), minTokens: 0 }),
  (r) => shorter(r, Math.ceil(r.prompt.length / 2)),
  (r) => shorter(r, r.prompt.length - 1),
];

function shorter(request: ScenarioRequest, length: number): ScenarioRequest {
  if (length < 1) return request;
  return { ...request, prompt: request.prompt.slice(0, length), rowsFrom: Math.min(request.rowsFrom, length - 1) };
}

const FAULT: readonly ((fault: Fault) => Fault)[] = [
  (f) => ('step' in f.when && f.when.step > 0 ? { ...f, when: { ...f.when, step: f.when.step - 1 } } : f),
  (f) => ('at' in f.when ? { ...f, when: { at: Math.floor(f.when.at / 2) } } : f),
  (f) => (f.kind === 'abort' && f.ids.length > 1 ? { ...f, ids: f.ids.slice(0, 1) } : f),
  (f) => (f.kind === 'slow-lock-holder' && f.ticks > 1 ? { ...f, ticks: Math.floor(f.ticks / 2) } : f),
];
