/** A sweep as a table that shows for each cell how it goes with the value; as CSV; as JSON. */

import type { Environment } from '../../environment.ts';
import { cellName } from '../plan.ts';
import { headline, notes, type BenchReport } from '../report.ts';
import type { SweepParameter } from '../flags/sweep.ts';
import type { CellReport } from './cell-report.ts';
import { toCsv } from './csv.ts';
import { legend, metricsTable, wrapped, type TableRow } from './terminal.ts';

/** `value`: as it was given. */
export type SweptReport = BenchReport & Readonly<{ value: string }>;

/** What was measured so far, in the order of the values. In JSON the same. */
export type SweepReport = Readonly<{ sweep: SweepParameter; results: readonly SweptReport[] }>;

export function renderSweep({ sweep, results }: SweepReport): string {
  const hosts = [...new Set(results.map(({ environment }) => environment.host))];
  const table = metricsTable(sweep, rowsOf(results, sweep, hosts), {
    comparesRates: results.every(({ options }) => options.mode.kind === 'closed'),
  });
  const told = results.flatMap(({ value, ...result }) => notes(result).map((note) => `${sweep} ${value}: ${note}`));
  const values = results.map(({ value }) => value).join(', ');
  const title = `sweep of ${sweep}: ${values}; all else as here, with the first value:`;
  return [
    wrapped(title, '  '),
    headline(results[0]!),
    ...(hosts.length > 1 ? machinesText(results, hosts).map((line) => wrapped(line, '  ')) : []),
    table,
    legend(),
    ...told.map((note) => wrapped(note, '  ')),
  ].join('\n');
}

export function sweepCsv({ sweep, results }: SweepReport): string {
  const rows = results.flatMap(({ value, environment, cells }) =>
    cells.map((cell) => ({ before: [value, environment.host], cell })),
  );
  return toCsv(rows, [sweep.replaceAll('-', '_'), 'host']);
}

/**
 * Below the name of each cell a line for each value, with the number of its machine if there are several. Where the
 * shares are swept, designs take the place of cells.
 */
function rowsOf(results: readonly SweptReport[], sweep: SweepParameter, hosts: readonly string[]): TableRow[] {
  const groups = new Map<string, TableRow[]>();
  const nameOf = (cell: CellReport): string => (sweep === 'opt-in' ? cell.design : cellName(cell));
  for (const { value, environment, cells } of results) {
    const label = hosts.length > 1 ? `  ${value} (${machineName(environment, hosts)})` : `  ${value}`;
    for (const cell of cells) {
      const name = nameOf(cell);
      if (!groups.has(name)) groups.set(name, [{ label: name, cell: null }]);
      groups.get(name)!.push({ label, cell });
    }
  }
  return [...groups.values()].flat();
}

function machinesText(results: readonly SweptReport[], hosts: readonly string[]): string[] {
  const machines = hosts.map((host) => results.find(({ environment }) => environment.host === host)!.environment);
  return [
    'values were measured on several machines: compare a design with off in one line, and no line with another of ' +
      'another machine',
    ...machines.map(
      (each) => `${machineName(each, hosts)}: ${each.host}, ${each.cpu} × ${each.numCpus}, ${each.device}`,
    ),
  ];
}

function machineName({ host }: Environment, hosts: readonly string[]): string {
  return `machine ${hosts.indexOf(host) + 1}`;
}
