/** Thread entry of `fuzz` and `matrix`: a range of seeds of one subject a task. */

import { runSeeds, type CampaignOptions, type CampaignPart } from '../../sim/campaign.ts';
import { loadedSubject, loadSubjects } from './loaded-subjects.ts';

export type SeedsTask = Readonly<{ design: string; from: number; to: number; options: CampaignOptions }>;

export default async function runTask({ design, from, to, options }: SeedsTask): Promise<CampaignPart> {
  await loadSubjects([design]);
  return runSeeds(loadedSubject(design), from, to, options);
}
