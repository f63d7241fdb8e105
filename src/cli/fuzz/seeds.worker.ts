/** Thread entry of `fuzz` and `matrix`: a range of seeds of one design a task. */

import { runSeeds, type CampaignOptions, type CampaignPart } from '../../sim/campaign.ts';
import { loadDesigns, loadedDesign } from './loaded-designs.ts';

export type SeedsTask = Readonly<{ design: string; from: number; to: number; options: CampaignOptions }>;

export default async function runTask({ design, from, to, options }: SeedsTask): Promise<CampaignPart> {
  await loadDesigns([design]);
  return runSeeds(loadedDesign(design), { from, to, ...options });
}
