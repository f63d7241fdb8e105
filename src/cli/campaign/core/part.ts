/** A part of a campaign, as its file holds it, and what parts must be to be put together. */

import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { Description } from './kind.ts';
import { showShare, type Share } from './share.ts';

/** The code that ran: results of another are not comparable. */
export type Build = Readonly<{ version: string; commit: string }>;

export type PartHeader = Readonly<{ id: string; build: Build; description: Description; share: Share }>;

/** Results with their shards, as they came: two processes that ran one campaign at a time have both written a shard. */
export type Part = PartHeader & Readonly<{ file: string; results: readonly (readonly [number, unknown])[] }>;

export function showBuild({ version, commit }: Build): string {
  return `version ${version}, commit ${commit}`;
}

/** Throws BAD_FILE unless the part was made by this code. */
export function checkBuild({ file, build: found }: Pick<Part, 'file' | 'build'>, build: Build): void {
  if (showBuild(found) === showBuild(build)) return;
  throw RoutedExpertsError.of(
    'BAD_FILE',
    file,
    `is of ${showBuild(found)}, and this is ${showBuild(build)}; check out the commit of the file, or run it again`,
  );
}

/** Throws BAD_FILE, with the part's name, unless all parts are of one campaign and of this code, each there once. */
export function checkParts(parts: readonly Part[], build: Build): void {
  const [first] = parts;
  if (first === undefined) return;
  const files = new Map<number, string>();
  for (const part of parts) {
    const { file, share } = part;
    const bad = (problem: string): RoutedExpertsError => RoutedExpertsError.of('BAD_FILE', file, problem);
    checkBuild(part, build);
    const other = otherField(part.description, first.description);
    if (other !== null) throw bad(`is of another campaign than ${first.file}: ${other}; merge each by itself`);
    if (share.count !== first.share.count) {
      throw bad(`is part ${showShare(share)}, ${first.file} is ${showShare(first.share)}; cut a campaign in one way`);
    }
    const twin = files.get(share.index);
    if (twin !== undefined) throw bad(`is part ${showShare(share)}, and so is ${twin}; give each part once`);
    files.set(share.index, file);
  }
  const { count } = first.share;
  const absent = Array.from({ length: count }, (_, index) => index).filter((index) => !files.has(index));
  if (absent.length === 0) return;
  const names = absent.slice(0, 10).map((index) => showShare({ index, count }));
  const more = absent.length > names.length ? ` and ${absent.length - names.length} more` : '';
  throw RoutedExpertsError.of(
    'BAD_FILE',
    first.file,
    `part ${names.join(', ')}${more} of its campaign is missing; run it with --shard, and merge all ${count}`,
  );
}

/** The first field in which two descriptions differ, with both values. */
export function otherField(found: Description, wanted: Description): string | null {
  const values = found as Readonly<Record<string, unknown>>;
  const others = wanted as Readonly<Record<string, unknown>>;
  for (const field of new Set([...Object.keys(others), ...Object.keys(values)])) {
    const [value, other] = [values[field], others[field]].map((each) => JSON.stringify(each) ?? 'absent');
    if (value !== other) return `${field} ${value}, not ${other}`;
  }
  return null;
}
