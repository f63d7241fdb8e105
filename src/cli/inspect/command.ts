/** `routed-experts inspect`: what rows say. */

import { Command } from 'commander';
import type { InspectionOptions, InspectionReport } from '../../analysis/inspection.ts';
import { Inspection } from '../../analysis/inspection.ts';
import { METRIC_DEFINITIONS } from '../../analysis/load/metric-definitions.ts';
import type { EplbShape } from '../../analysis/placement/eplb.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { OpenedRows } from '../../rows/files/open-rows.ts';
import { openRows } from '../../rows/files/open-rows.ts';
import type { RowsShape } from '../../rows/row-batch.ts';
import { whole } from '../options.ts';
import { reportCsv } from './report-csv.ts';
import { reportText } from './report-text.ts';
import type { RowsFlags } from './rows-flags.ts';
import { hintsOf, withRowsFlags } from './rows-flags.ts';
import type { SaidPasses } from './step-rows.ts';
import { withPasses } from './step-rows.ts';
import { verifyCommand } from './verify/command.ts';

type Flags = RowsFlags &
  Readonly<{
    ep?: number;
    nodes: number;
    redundant?: number;
    groups: number;
    passes?: SaidPasses;
    window: number;
    sample: number;
    allRows?: boolean;
    allLayers?: boolean;
    json?: boolean;
    csv?: boolean;
  }>;

const DEFAULT_SAMPLE = 10_000;

export function inspectCommand(): Command {
  const command = new Command('inspect')
    .description(
      'Say what rows of routed experts say: load, balance, locality, faults, and what a placement would gain',
    )
    .argument('<files...>', 'rows: .npy, .npz, Parquet, JSON, answers of servers, logs of routes (docs/inspect.md)');
  return withRowsFlags(command)
    .option('--ep <n>', 'expert-parallel ranks: loads per rank and pass', whole(1, 65_536))
    .option('--redundant <n>', 'slots for replicas, over all ranks: what EPLB would have gained', whole(0, 65_536))
    .option('--nodes <n>', 'nodes of the ranks', whole(1, 65_536), 1)
    .option('--groups <n>', 'groups of experts that stay on a node', whole(1, 65_536), 1)
    .option('--passes <n>', 'rows of a forward pass where the form has none, or "positions"', saidPasses)
    .option('--window <n>', 'passes that a placement is fitted on, and judged on', whole(1), 16)
    .option('--sample <n>', 'rows for caches, affinity and pairs, or "all"', sampleRows, DEFAULT_SAMPLE)
    .option('--all-rows', 'count long runs of equal rows, and rows of zeros, too')
    .option('--all-layers', 'list every layer')
    .option('--json', 'print everything as JSON, with the definitions')
    .option('--csv', 'print a line a layer')
    .addHelpText('after', '\nExit code: 0 ok, 2 bad usage, or rows that cannot be read: file, place and rule.')
    .addCommand(verifyCommand())
    .action(inspect);
}

async function inspect(files: readonly string[], flags: Flags): Promise<void> {
  const opened = await openRows(files, hintsOf(flags));
  const { source, capture } = flags.passes === undefined ? opened : withPasses(opened, flags.passes);
  const options = optionsOf(flags, source.shape);
  const report = await inspected({ source, capture }, options);
  if (flags.json === true) process.stdout.write(`${JSON.stringify(jsonOf(report))}\n`);
  else {
    const text = { allLayers: flags.allLayers === true, keepsAll: flags.allRows === true };
    const lines = flags.csv === true ? reportCsv(report) : reportText(report, text);
    process.stdout.write(`${lines.join('\n')}\n`);
  }
}

/** @throws BAD_FILE for rows that cannot be read, and where there are none */
async function inspected({ source, capture }: OpenedRows, options: InspectionOptions): Promise<InspectionReport> {
  const inspection = new Inspection(source, capture, options);
  for await (const batch of source.batches()) inspection.add(batch);
  const report = inspection.end();
  if (report.rows.read > 0) return report;
  throw RoutedExpertsError.of('BAD_FILE', 'the files', 'there is no row in them');
}

/** @throws BAD_VALUE for ranks that do not divide the experts, and where the number of experts is unknown */
function optionsOf(flags: Flags, { numExperts }: RowsShape): InspectionOptions {
  const { ep, redundant, nodes, groups } = flags;
  if (ep === undefined && redundant !== undefined) throw bad('--ep', 'missing', 'the number of ranks');
  if (ep !== undefined && numExperts === null) throw bad('--experts', 'missing', 'it: the form does not say it');
  if (ep !== undefined && numExperts! % ep !== 0) throw bad('--ep', ep, `a divisor of the ${numExperts} experts`);
  let eplb: EplbShape | null = null;
  if (ep !== undefined && redundant !== undefined) {
    if (redundant % ep !== 0) throw bad('--redundant', redundant, `a multiple of the ${ep} ranks`);
    if (ep % nodes !== 0) throw bad('--nodes', nodes, `a divisor of the ${ep} ranks`);
    if (numExperts! % groups !== 0) throw bad('--groups', groups, `a divisor of the ${numExperts} experts`);
    eplb = { numReplicas: numExperts! + redundant, numGroups: groups, numNodes: nodes, numGpus: ep };
  }
  return {
    keepsAll: flags.allRows === true,
    sampleRows: flags.sample,
    numRanks: ep ?? null,
    eplb,
    windowSteps: flags.window,
  };
}

function bad(name: string, value: unknown, wanted: string): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_VALUE', name, value, wanted);
}

function jsonOf(report: InspectionReport): unknown {
  const { placement, counts } = report;
  const maps = placement?.plan.maps;
  return {
    ...report,
    counts: counts.map((layer) => [...layer]),
    placement:
      placement === null || maps === undefined
        ? null
        : {
            screening: placement.screening,
            slotsChanged: placement.plan.slotsChanged,
            maxOverMean: placement.plan.maxOverMean,
            physicalToLogical: maps.physicalToLogical.map((slots) => [...slots]),
            logicalCount: maps.logicalCount.map((replicas) => [...replicas]),
          },
    definitions: METRIC_DEFINITIONS,
  };
}

function saidPasses(text: string): SaidPasses {
  return text === 'positions' ? text : whole(1)(text);
}

function sampleRows(text: string): number {
  return text === 'all' ? Number.MAX_SAFE_INTEGER : whole(0)(text);
}
