/** The scenario of each of two engines, made of the one that has both. */

import type { Scenario, ScenarioRequest } from '../scenario.ts';
import type { PdScenario } from './pd-scenario.ts';

/** Every request that is handed over, for its prompt only. */
export function prefillScenario(scenario: Scenario, pd: PdScenario): Scenario {
  const { engine, queueDepth, ringDepth, numRanks = 1, faults, direct, rowless = [] } = pd;
  const requests = scenario.requests
    .filter(({ id }) => !direct.includes(id))
    .map((request) => prefillOf(request, !rowless.includes(request.id)));
  // Passes of the two take times of their own.
  return { ...scenario, seed: scenario.seed + 2 ** 32, engine, queueDepth, ringDepth, numRanks, faults, requests };
}

/** What comes to the decode engine by itself; the others come when their prefill is over. */
export function decodeScenario(scenario: Scenario, { direct }: PdScenario): Scenario {
  return { ...scenario, requests: scenario.requests.filter(({ id }) => direct.includes(id)) };
}

function prefillOf(request: ScenarioRequest, asksForRows: boolean): ScenarioRequest {
  return { ...request, rows: request.rows && asksForRows, maxTokens: 1, minTokens: Math.min(request.minTokens, 1) };
}
