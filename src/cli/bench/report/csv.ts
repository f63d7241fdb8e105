/** The cells of a bench as CSV (RFC 4180): a line of names, whose ends are the units, then a line for each cell. */

import type { CellReport } from './cell-report.ts';
import { METRICS } from './metrics.ts';

/** `before`: columns of the caller's own, the first ones. */
export type CsvRow = Readonly<{ before: readonly (string | number)[]; cell: CellReport }>;

/** `names`: of the columns `before`. */
export function toCsv(rows: readonly CsvRow[], names: readonly string[] = []): string {
  const columns = METRICS.flatMap(({ csv }) => Object.entries(csv));
  const heads = [...names, 'design', 'opted_in_share', ...columns.map(([name]) => name)];
  const lines = rows.map(({ before, cell }) => [
    ...before,
    cell.design,
    cell.optInShare,
    ...columns.map(([, of]) => of(cell)),
  ]);
  return csvText(heads, lines);
}

/** RFC 4180. */
export function csvText(heads: readonly string[], lines: readonly (readonly (string | number | null)[])[]): string {
  return [heads, ...lines].map((fields) => `${fields.map(field).join(',')}\r\n`).join('');
}

/** What is not known is empty; fractions have six digits. */
function field(value: string | number | null): string {
  if (value === null || Number.isNaN(value)) return '';
  const text = typeof value === 'string' || Number.isInteger(value) ? `${value}` : `${Number(value.toPrecision(6))}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
