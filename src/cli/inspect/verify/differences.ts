/** Compares an answer with a recorded one, key by key. What is recorded must be there. The rest is not looked at. */

export type Tolerance = Readonly<{ relative: number; absolute: number }>;

export const F64: Tolerance = { relative: 1e-9, absolute: 1e-12 };
export const F32: Tolerance = { relative: 1e-5, absolute: 1e-5 };

/** A place where answers differ, as text. */
export function differences(
  expected: unknown,
  actual: unknown,
  toleranceOf: (path: string) => Tolerance,
  path: string = '',
): string[] {
  if (typeof expected === 'number') {
    return isClose(expected, actual, toleranceOf(path)) ? [] : [told(path, expected, actual)];
  }
  if (typeof expected !== 'object' || expected === null) {
    return Object.is(expected, actual ?? null) ? [] : [told(path, expected, actual)];
  }
  if (typeof actual !== 'object' || actual === null) return [told(path, expected, actual)];
  if (isList(expected)) {
    if (!isList(actual)) return [told(path, expected, actual)];
    if (expected.length !== actual.length)
      return [`${path}: ${expected.length} entries recorded, ${actual.length} found`];
    const list = actual;
    return Array.from(expected).flatMap((value, i) => differences(value, list[i], toleranceOf, `${path}[${i}]`));
  }
  const members = actual as Readonly<Record<string, unknown>>;
  return Object.entries(expected).flatMap(([key, value]) =>
    differences(value, members[key], toleranceOf, path === '' ? key : `${path}.${key}`),
  );
}

function isList(value: object): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value);
}

function isClose(expected: number, actual: unknown, { relative, absolute }: Tolerance): boolean {
  if (typeof actual !== 'number') return false;
  if (expected === actual) return true;
  return Math.abs(expected - actual) <= Math.max(absolute, relative * Math.abs(expected));
}

const MOST_SHOWN = 80;

const shown = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, MOST_SHOWN);

function told(path: string, expected: unknown, actual: unknown): string {
  return `${path}: ${shown(expected)} recorded, ${shown(actual)} found`;
}
