/** What two sources of rows have to do with each other, by kind and in words. */

export type VerdictKind =
  | 'identical'
  | 'same-sets'
  | 'shifted-rows'
  | 'shifted-layers'
  | 'prompt-only'
  | 'output-only'
  | 'rows-missing'
  | 'columns-permuted'
  | 'columns-sorted'
  | 'columns-transposed'
  | 'dense-layers-counted'
  | 'last-row-repeated'
  | 'padding-counted'
  | 'extra-rows'
  | 'requests-swapped'
  | 'requests-missing'
  | 'physical-ids'
  | 'other-weights'
  | 'scattered'
  | 'unrelated';

export type Verdict = Readonly<{
  kind: VerdictKind;
  /** A sentence about B, as in "B is A shifted by one row from position 812 on". */
  words: string;
  /** Share of B that the verdict explains, where that is a matter of degree. */
  explains: number | null;
}>;

export function verdict(kind: VerdictKind, words: string, explains: number | null = null): Verdict {
  return { kind, words, explains };
}

export function count(number: number, one: string, many: string = `${one}s`): string {
  return `${number === 1 ? 'one' : number} ${number === 1 ? one : many}`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0.999 && share < 1 ? 2 : 1)} %`;
}
