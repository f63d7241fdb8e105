/** Many seeds of one design: what a thread of `fuzz` and `matrix` does with its share. */

import { Coverage, type Beside, type Mark } from './coverage.ts';
import { drawScenario } from './draw-scenario.ts';
import { EventLog } from './event-log.ts';
import { drawOffloadScenario } from './offload/draw-offload-scenario.ts';
import { drawPdScenario } from './pd/draw-pd-scenario.ts';
import { drawStageScenario } from './stages/draw-stage-scenario.ts';
import { runScenario } from './run-scenario.ts';
import type { Scenario } from './scenario.ts';
import type { TestedDesign } from './tested-design.ts';
import type { LawName, ViolationKind } from './laws/violation.ts';

/** A law that the storm of one seed broke. */
export type SeedViolation = Readonly<{
  design: string;
  seed: number;
  kind: ViolationKind;
  law: LawName;
  /** The step begun last. */
  step: number;
  what: string;
}>;

/** How many seeds showed something, and the first of them. */
export type Seen = Readonly<{ seeds: number; first: number }>;

/** What a range of seeds of one design showed. */
export type CampaignPart = Readonly<{
  design: string;
  scenarios: number;
  steps: number;
  violations: readonly SeedViolation[];
  /** Laws that the design declares to give up, where that showed. */
  declared: Readonly<Partial<Record<LawName, Seen>>>;
  marks: Readonly<Record<Mark, number>>;
  /** The hash over the event logs of all seeds, in their order. */
  hash: string;
}>;

/** The seeds `[from, to)`. */
export type SeedRange = Readonly<{ from: number; to: number }>;

/** How a campaign runs. */
export type CampaignOptions = Readonly<{
  /** Whether storms have a prefill engine in front. */
  pd?: boolean;
  /** Whether KV is kept outside the device. Not with `pd`. */
  offload?: boolean;
  /** Whether they run on a pipeline of stages. With neither. */
  pipeline?: boolean;
  /** Whether each seed runs twice and its event logs are compared (L10). */
  twice: boolean;
  /** Stops after this many violations; 0 = never. */
  stopAfter: number;
}>;

/**
 * Draws the storm of a seed. It has what the campaign asks for beside the engine, and for a mutant what its defect
 * needs.
 */
export function scenarioOf(seed: number, { mutation }: TestedDesign, { pd, offload, pipeline }: Beside): Scenario {
  if (pipeline === true || mutation.inPipeline === true) return drawStageScenario(seed);
  if (pd === true || mutation.inPd === true) return drawPdScenario(seed);
  return offload === true || mutation.inOffload === true ? drawOffloadScenario(seed) : drawScenario(seed);
}

/** Runs a range of seeds. */
export function runSeeds(tested: TestedDesign, { from, to, ...options }: SeedRange & CampaignOptions): CampaignPart {
  const coverage = new Coverage();
  const violations: SeedViolation[] = [];
  const declared: Partial<Record<LawName, Seen>> = {};
  const log = new EventLog(false);
  let steps = 0;
  let seed = from;
  for (; seed < to; seed += 1) {
    const scenario = scenarioOf(seed, tested, options);
    const { violation, marks, numSteps, hash, declared: shown } = runScenario(scenario, tested);
    steps += numSteps;
    coverage.add(marks);
    for (let i = 0; i < hash.length; i += 8) log.word(Number.parseInt(hash.slice(i, i + 8), 16));
    for (const law of shown.keys()) {
      const seen = declared[law];
      declared[law] = { seeds: (seen?.seeds ?? 0) + 1, first: seen?.first ?? seed };
    }
    if (violation !== null) {
      const { kind, law, step, message } = violation;
      violations.push({ design: tested.name, seed, kind, law, step, what: message });
    }
    if (options.twice) {
      const again = runScenario(scenario, tested).hash;
      if (again !== hash) {
        const what = `two runs of one seed wrote different event logs: ${hash} and ${again}`;
        violations.push({ design: tested.name, seed, kind: 'wrong', law: 'L10', step: -1, what });
      }
    }
    if (options.stopAfter > 0 && violations.length >= options.stopAfter) {
      seed += 1;
      break;
    }
  }
  const { counts: marks } = coverage;
  return { design: tested.name, scenarios: seed - from, steps, violations, declared, marks, hash: log.hash };
}

/** Merges the parts of one design, which are in the order of their seeds. */
export function mergeParts(parts: readonly CampaignPart[]): CampaignPart {
  const coverage = new Coverage();
  const declared: Partial<Record<LawName, Seen>> = {};
  const log = new EventLog(false);
  for (const part of parts) {
    coverage.merge(part.marks);
    for (let i = 0; i < part.hash.length; i += 8) log.word(Number.parseInt(part.hash.slice(i, i + 8), 16));
    for (const [law, { seeds, first }] of Object.entries(part.declared) as [LawName, Seen][]) {
      const seen = declared[law];
      declared[law] = { seeds: (seen?.seeds ?? 0) + seeds, first: Math.min(seen?.first ?? first, first) };
    }
  }
  return {
    design: parts[0]?.design ?? '',
    scenarios: parts.reduce((sum, part) => sum + part.scenarios, 0),
    steps: parts.reduce((sum, part) => sum + part.steps, 0),
    violations: parts.flatMap((part) => part.violations),
    declared,
    marks: coverage.counts,
    hash: log.hash,
  };
}
