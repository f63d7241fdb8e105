/** Where a campaign keeps what is done, and whether what is kept there is of this campaign. */

import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { currentBuild } from './build.ts';
import type { Description } from './core/kind.ts';
import { checkBuild, otherField, type Build, type PartHeader } from './core/part.ts';
import { showShare, WHOLE } from './core/share.ts';
import { ResultFile } from './result-file.ts';
import type { RunFlags } from './run-flags.ts';

const FOLDER = join('out', 'campaigns');

/** Where the campaign of this id keeps what is done. */
export function campaignFile(id: string): string {
  return join(FOLDER, `${id}.jsonl`);
}

/**
 * The file of a campaign; null for one that is kept nowhere. `given`: the fields of the description that were asked
 * for; in the others a campaign goes on as it began. Throws BAD_FILE.
 */
export function openCampaignFile(
  described: Description,
  given: ReadonlySet<string>,
  { queue, campaign, shard, part }: RunFlags,
): ResultFile | null {
  if (queue === undefined && campaign === undefined && shard === undefined) return null;
  const build = currentBuild();
  const { kind } = described;
  const share = shard ?? WHOLE;
  const id = campaign ?? `${kind}-${shard === undefined ? randomBytes(4).toString('hex') : digestOf(described, build)}`;
  const place = shard === undefined ? id : `${id}-${share.index + 1}-of-${share.count}`;
  const header: PartHeader = { id, build, description: described, share };
  const file = new ResultFile(part ?? campaignFile(place), header);
  checkSame(file, header, shard === undefined ? given : new Set(Object.keys(described)));
  return file;
}

/** One for all shares of a campaign. */
function digestOf(description: Description, build: Build): string {
  const text = JSON.stringify([description, build]);
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

function checkSame({ part }: ResultFile, { build, description, share }: PartHeader, fields: ReadonlySet<string>): void {
  checkBuild(part, build);
  const wanted = Object.entries(description).filter(([field]) => field === 'kind' || fields.has(field));
  const other = otherField({ ...part.description, ...Object.fromEntries(wanted) }, part.description);
  const problem =
    other !== null
      ? `is of another campaign: ${other}; leave that out to go on with it, or choose another name`
      : showShare(part.share) !== showShare(share)
        ? `holds part ${showShare(part.share)}, not ${showShare(share)}; choose another name`
        : null;
  if (problem !== null) throw RoutedExpertsError.of('BAD_FILE', part.file, problem);
}
