/** Columns of text, and numbers in them. */

/** Cells go to the right of their column; the one named `left`, and the first, to the left. */
export function columns(head: readonly string[], rows: readonly (readonly string[])[], left?: string): string[] {
  const isLeft = (i: number): boolean => i === 0 || head[i]!.trim() === left;
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => (isLeft(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
}

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  return Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
}

export function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : `${(100 * value).toFixed(1)} %`;
}
