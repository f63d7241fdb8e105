/** A sweep as a table that shows for each cell how it goes with the value; as CSV; as JSON. */

import type { BenchResult } from '../bench.ts';
import { cellName } from '../plan.ts';
import { headline, notes, toJson } from '../report.ts';
import type { SweepParameter } from '../flags/sweep.ts';
import { reportCells, type CellReport } from './cell-report.ts';
import { toCsv } from './csv.ts';
import { legend, metricsTable, wrapped, type TableRow } from './terminal.ts';

/** `value`: as it was given. */
export type SweptResult = Readonly<{ value: string; result: BenchResult }>;

/** What was measured so far, in the order of the values. */
export type SweepResult = Readonly<{ parameter: SweepParameter; results: readonly SweptResult[] }>;

export function renderSweep({ parameter, results }: SweepResult): string {
  const table = metricsTable(parameter, rowsOf(results, parameter), {
    comparesRates: results.every(({ result }) => result.options.mode.kind === 'closed'),
  });
  const told = results.flatMap(({ value, result }) => notes(result).map((note) => `${parameter} ${value}: ${note}`));
  const values = results.map(({ value }) => value).join(', ');
  const title = `sweep of ${parameter}: ${values}; all else as here, with the first value:`;
  return [
    wrapped(title, '  '),
    headline(results[0]!.result),
    table,
    legend(),
    ...told.map((note) => wrapped(note, '  ')),
  ].join('\n');
}

export function sweepCsv({ parameter, results }: SweepResult): string {
  const rows = results.flatMap(({ value, result }) => reportCells(result).map((cell) => ({ before: [value], cell })));
  return toCsv(rows, [parameter.replaceAll('-', '_')]);
}

export function sweepJson({ parameter, results }: SweepResult): unknown {
  return { sweep: parameter, results: results.map(({ value, result }) => ({ value, ...(toJson(result) as object) })) };
}

/** Below the name of each cell a line for each value. Where the shares are swept, designs take the place of cells. */
function rowsOf(results: readonly SweptResult[], parameter: SweepParameter): TableRow[] {
  const groups = new Map<string, TableRow[]>();
  const nameOf = (cell: CellReport): string => (parameter === 'opt-in' ? cell.design : cellName(cell));
  for (const { value, result } of results) {
    for (const cell of reportCells(result)) {
      const name = nameOf(cell);
      if (!groups.has(name)) groups.set(name, [{ label: name, cell: null }]);
      groups.get(name)!.push({ label: `  ${value}`, cell });
    }
  }
  return [...groups.values()].flat();
}
