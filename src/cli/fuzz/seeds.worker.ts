/** Thread entry of `fuzz` and `matrix`: a range of seeds of one design a task. */

import { runSeeds, type CampaignOptions, type CampaignPart } from '../../sim/campaign.ts';
import { findTestedDesign } from '../../sim/mutants/mutants.ts';

export type SeedsTask = Readonly<{ design: string; from: number; to: number; options: CampaignOptions }>;

export default function runTask({ design, from, to, options }: SeedsTask): CampaignPart {
  return runSeeds(findTestedDesign(design), from, to, options);
}
