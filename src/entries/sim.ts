/**
 * `routed-experts/sim`: the engine and a capture design in virtual time, under seeded storms, with every law checked at
 * every step. Nothing of Node, no clock: the same seed is the same run on every machine.
 *
 *     const tested = testedDesignOf(myDesign);           or testedDesignByName('deltas/share')
 *     const { violation, hash } = runScenario(drawScenario(7), tested);
 *     const { violations } = runSeeds(tested, { from: 0, to: 2000, twice: false, stopAfter: 1 });
 *     const shrunk = shrink(drawScenario(violations[0].seed), tested);
 *     console.log(reportRun(shrunk.scenario, tested).join('\n'));
 *
 * Times are in ticks: a forward pass takes about a hundred. Seeds are whole numbers from 0 to 2^32 − 1.
 */

export {
  mergeParts,
  runSeeds,
  type CampaignOptions,
  type CampaignPart,
  type SeedRange,
  type SeedViolation,
} from '../sim/campaign.ts';
export { readCase, writeCase, type SavedCase } from '../sim/case-file.ts';
export { drawScenario } from '../sim/draw-scenario.ts';
export { drawOffloadScenario } from '../sim/offload/draw-offload-scenario.ts';
export { drawPdScenario } from '../sim/pd/draw-pd-scenario.ts';
export { LAWS, type LawName, type Violation, type ViolationKind } from '../sim/laws/violation.ts';
export { runScenario, type ScenarioResult } from '../sim/run-scenario.ts';
export type { Fault } from '../sim/fault.ts';
export type { Scenario, ScenarioRequest } from '../sim/scenario.ts';
export { shrink, type Shrunk } from '../sim/shrink.ts';
export { reportRun } from '../sim/run-report.ts';
export { testedDesignOf, testedDesignByName, testedDesignNames, type TestedDesign } from '../sim/tested-design.ts';
