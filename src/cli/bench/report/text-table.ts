/** Tables of a terminal: no lines but the one below the heads, and nothing behind the last word of a line. */

import Table from 'cli-table3';

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

export type TextColumn = Readonly<{ head: string; align: 'left' | 'right' }>;

/** `middle`: what stands between two columns. */
export function textTable(
  columns: readonly TextColumn[],
  rows: readonly (readonly string[])[],
  middle: string = '  ',
): string {
  const table = new Table({
    head: columns.map(({ head }) => head),
    chars: { ...NO_LINES, mid: '─', 'mid-mid': '─'.repeat(middle.length), middle },
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    colAligns: columns.map(({ align }) => align),
  });
  table.push(...rows.map((row) => [...row]));
  const lines = table.toString().split('\n');
  return lines.map((line) => line.trimEnd()).join('\n');
}
