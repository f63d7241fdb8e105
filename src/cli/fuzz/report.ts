/** What a campaign found, for readers and for programs. */

import Table from 'cli-table3';
import type { CampaignPart, SeedViolation } from '../../sim/campaign.ts';
import { ALL_MARKS, MARKS, REQUIRED_MARKS, REQUIRED_PD_MARKS, REQUIRED_SHARE } from '../../sim/coverage.ts';
import { LAWS } from '../../sim/violation.ts';

/** Exit codes of `fuzz`, beyond 0 (every law kept) and 2 (bad usage). */
export const EXIT = { wrong: 1, stall: 3, crash: 4 } as const;

/** A wrong answer outweighs a crash, a crash a stall. */
export function exitCodeOf(violations: readonly SeedViolation[]): number {
  for (const kind of ['wrong', 'crash', 'stall'] as const) {
    if (violations.some((violation) => violation.kind === kind)) return EXIT[kind];
  }
  return 0;
}

export type FuzzReport = Readonly<{
  seeds: number;
  from: number;
  /** With a prefill engine in front. */
  pd: boolean;
  scenarios: number;
  steps: number;
  seconds: number;
  scenariosPerSecond: number;
  stepsPerSecond: number;
  designs: readonly Readonly<{
    design: string;
    /** Of all event logs; the same on every machine. */
    hash: string;
    declared: CampaignPart['declared'];
    marks: CampaignPart['marks'];
  }>[];
  violations: readonly (SeedViolation & Readonly<{ story: readonly string[]; file: string | null }>)[];
}>;

/** The table and the counts of rare paths. */
export function renderReport(report: FuzzReport, parts: readonly CampaignPart[]): string {
  const table = new Table({
    head: ['design', 'scenarios', 'broken', 'gives up (seeds)', 'event log'],
    style: { head: [], border: [] },
  });
  for (const part of parts) {
    const declared = LAWS.flatMap((law) => (part.declared[law] ? [`${law} (${part.declared[law].seeds})`] : []));
    table.push([part.design, part.scenarios, part.violations.length, declared.join(' '), part.hash]);
  }
  const scenarios = parts.reduce((sum, part) => sum + part.scenarios, 0);
  const required = report.pd ? REQUIRED_PD_MARKS : REQUIRED_MARKS;
  const marks = (report.pd ? ALL_MARKS : MARKS).map((mark) => {
    const count = parts.reduce((sum, part) => sum + part.marks[mark], 0);
    const share = scenarios === 0 ? 0 : count / scenarios;
    const isThin = required.includes(mark) && scenarios >= 1000 && share < REQUIRED_SHARE;
    return `  ${String(count).padStart(8)}  ${(100 * share).toFixed(1).padStart(5)} %  ${mark}${isThin ? '   too rare' : ''}`;
  });
  return [
    table.toString(),
    'scenarios that went where it hurts:',
    ...marks,
    `${report.scenarios} scenarios, ${report.steps} steps in ${report.seconds.toFixed(1)} s: ` +
      `${Math.round(report.scenariosPerSecond)} scenarios/s, ${Math.round(report.stepsPerSecond)} steps/s`,
  ].join('\n');
}
