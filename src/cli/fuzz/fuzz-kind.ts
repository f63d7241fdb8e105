/** The campaign of `fuzz`: designs through storms, and what is told of the laws that they broke. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mergeParts, scenarioOf, type CampaignPart, type SeedViolation } from '../../sim/campaign.ts';
import type { Beside } from '../../sim/coverage.ts';
import { writeCase } from '../../sim/case-file.ts';
import { reportRun } from '../../sim/run-report.ts';
import { shrink } from '../../sim/shrink.ts';
import type { CampaignKind, ReportFlags } from '../campaign/core/kind.ts';
import { loadedDesign } from './loaded-designs.ts';
import { loadSameDesigns, type ModuleDigests } from './module-digests.ts';
import { exitCodeOf, EXIT, firstOfEachLaw, renderReport, thinPathsOf, type FuzzReport } from './report.ts';
import { numStorms, numViolations, openStormThreads, stormSeries, type StormTask } from './storm-tasks.ts';

export type FuzzDescription = Readonly<{
  kind: 'fuzz';
  designs: readonly string[];
  modules: ModuleDigests;
  from: number;
  seeds: number;
  pd: boolean;
  /** Absent in campaigns without it. */
  offload?: boolean;
  /** Absent in campaigns without it. */
  pipeline?: boolean;
  twice: boolean;
}>;

/** Where shrunk failures go. */
export const CASE_FOLDER = 'out/fuzz';

/** Violations of a campaign that are shrunk and told, the first of each law; of the others the seeds are listed. */
const MOST_REPORTS = 5;

export const fuzzKind: CampaignKind<FuzzDescription, StormTask, CampaignPart> = {
  name: 'fuzz',
  seriesOf: ({ seeds, pd, offload, pipeline, twice, ...storms }) => {
    const beside = { ...(offload === true ? { offload } : {}), ...(pipeline === true ? { pipeline } : {}) };
    return stormSeries({ ...storms, numSeeds: seeds, options: { pd, ...beside, twice, stopAfter: 0 } });
  },
  sizeOf: numStorms,
  numViolations,
  openRunner: openStormThreads,
  checkHere: ({ designs, modules }) => loadSameDesigns(designs, modules),
  report: ({ description, results, seconds, flags }) =>
    report(description, results.map(mergeParts), { ...flags, seconds }),
};

function report(
  { seeds, from, pd, offload = false, pipeline = false }: FuzzDescription,
  parts: readonly CampaignPart[],
  { json, save = CASE_FOLDER, seconds }: ReportFlags & Readonly<{ seconds: number | null }>,
): void {
  const beside = { pd, offload, pipeline };
  const found = parts.flatMap(({ violations }) => violations);
  const told = new Set(firstOfEachLaw(found).slice(0, MOST_REPORTS));
  const violations = found.map((violation) => ({
    ...violation,
    ...(told.has(violation) ? saveCase(violation, { save, beside }) : { story: [], file: null }),
  }));
  const scenarios = parts.reduce((sum, part) => sum + part.scenarios, 0);
  const steps = parts.reduce((sum, part) => sum + part.steps, 0);
  const result: FuzzReport = {
    seeds,
    from,
    pd,
    offload,
    pipeline,
    scenarios,
    steps,
    seconds,
    scenariosPerSecond: seconds === null ? null : scenarios / seconds,
    stepsPerSecond: seconds === null ? null : steps / seconds,
    designs: parts.map(({ design, hash, declared, marks }) => ({ design, hash, declared, marks })),
    violations,
    thinPaths: thinPathsOf(parts, beside),
  };
  process.exitCode = exitCodeOf(found) || (result.thinPaths.length > 0 ? EXIT.thin : 0);
  if (json === true) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  for (const { design, seed, law, what, story, file } of violations) {
    if (file === null) continue;
    process.stdout.write(`${design}, seed ${seed}: ${law}: ${what}\n`);
    process.stdout.write(
      `${story.map((line) => `    ${line}`).join('\n')}\n    replay: routed-experts fuzz --replay ${file}\n\n`,
    );
  }
  process.stdout.write(`${renderReport(result, parts)}\n`);
}

/** Shrinks a failing seed, tells what is left, and saves it. */
function saveCase(
  violation: SeedViolation,
  { save, beside }: Readonly<{ save: string; beside: Beside }>,
): { story: string[]; file: string | null } {
  const tested = loadedDesign(violation.design);
  const shrunk = shrink(scenarioOf(violation.seed, tested, beside), tested);
  // Two runs that differ (L10) may well agree now: there is nothing to shrink.
  if (shrunk === null) return { story: [], file: null };
  const { scenario } = shrunk;
  const { law, message } = shrunk.violation;
  const name = violation.design.replace(/^[^\w]+/, '').replaceAll(/[^\w.-]+/g, '-');
  const kind = beside.pd ? 'pd-' : beside.offload ? 'offload-' : beside.pipeline ? 'pipeline-' : '';
  const file = join(save, `${name}-${law}-${kind}${violation.seed}.json`);
  mkdirSync(save, { recursive: true });
  writeFileSync(
    file,
    writeCase({ design: violation.design, law, note: `seed ${violation.seed}: ${message}`, scenario }),
  );
  return { story: reportRun(scenario, tested), file };
}
