/** Thread entry of `fuzz` and `matrix`: a range of seeds of one design a task. */

import { runSeeds, type CampaignPart } from '../../sim/campaign.ts';
import { loadDesigns, loadedDesign } from './loaded-designs.ts';
import { checkDigest } from './module-digests.ts';
import type { StormTask } from './storm-tasks.ts';

export default async function runTask({ design, digest, from, to, options }: StormTask): Promise<CampaignPart> {
  if (digest !== null) checkDigest(design, digest);
  await loadDesigns([design]);
  return runSeeds(loadedDesign(design), { from, to, ...options });
}
