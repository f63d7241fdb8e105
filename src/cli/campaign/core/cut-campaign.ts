import { Campaign } from './campaign.ts';
import type { CampaignKind, Description } from './kind.ts';
import type { Share } from './share.ts';

/** The shards of what a description says, and the task of each. */
export function cutCampaign<Described extends Description, Task, Result>(
  kind: CampaignKind<Described, Task, Result>,
  description: Described,
  share?: Share,
): { campaign: Campaign<Result>; tasks: Task[] } {
  const series = kind.seriesOf(description);
  const campaign = new Campaign<Result>({
    series: series.map(({ tasks, mostViolations }) => ({ numShards: tasks.length, mostViolations })),
    numViolations: (result) => kind.numViolations(result),
    ...(kind.repeatablePart && { repeatablePart: (result) => kind.repeatablePart!(result) }),
    ...(share && { share }),
  });
  return { campaign, tasks: series.flatMap(({ tasks }) => tasks) };
}
