/** The metrics of a bench in a terminal of 100 columns: the table, its legend, and their section of the help. */

import Table from 'cli-table3';
import { Help } from 'commander';
import type { CellReport } from './cell-report.ts';
import { METRICS, type TableContext } from './metrics.ts';

export const TERMINAL_COLUMNS = 100;

const NO_LINES = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  right: '',
  'right-mid': '',
};

/** `cell`: `null` for a heading. */
export type TableRow = Readonly<{ label: string; cell: CellReport | null }>;

/** Its columns stand as far apart as the terminal is wide enough for, by one space at least. */
export function metricsTable(title: string, rows: readonly TableRow[], context: TableContext): string {
  const apart = [2, 1].map((spaces) => tableWith(' '.repeat(spaces), title, rows, context));
  return apart.find((text) => widest(text) <= TERMINAL_COLUMNS) ?? apart.at(-1)!;
}

/** Of the metrics that have a column. */
export function legend(): string {
  return METRICS.filter(({ column }) => column !== undefined)
    .map(({ name, meaning }) => wrapped(`${name}: ${meaning}`, '  '))
    .join('\n');
}

/** The section of `--help`. */
export function metricsHelp(): string {
  return METRICS.map(({ name, meaning, csv, column }) => {
    const title = `${name}${column === undefined ? '' : ' *'} (${Object.keys(csv).join(', ')})`;
    return wrapped(`  ${title}: ${meaning}`, '    ');
  }).join('\n');
}

/** In lines of the terminal's width, those behind the first one indented. */
export function wrapped(text: string, indent: string = ''): string {
  const lines = new Help().boxWrap(text, TERMINAL_COLUMNS - indent.length).split('\n');
  return lines.map((line, i) => (i === 0 ? line : `${indent}${line.trimStart()}`)).join('\n');
}

function tableWith(middle: string, title: string, rows: readonly TableRow[], context: TableContext): string {
  const columns = METRICS.map(({ column }) => column).filter((column) => column !== undefined);
  const table = new Table({
    head: [title, ...columns.map(({ head }) => head)],
    chars: { ...NO_LINES, mid: '─', 'mid-mid': '─'.repeat(middle.length), middle },
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    colAligns: ['left', ...columns.map(() => 'right' as const)],
  });
  for (const { label, cell } of rows) {
    table.push([label, ...columns.map(({ text }) => (cell === null ? '' : text(cell, context)))]);
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

function widest(text: string): number {
  return Math.max(...text.split('\n').map((line) => line.length));
}
