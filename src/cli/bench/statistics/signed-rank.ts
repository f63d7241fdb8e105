/** An interval for the middle of a few values, from Wilcoxon's signed-rank test. */

export type Interval = Readonly<{ low: number; high: number }>;

/**
 * Where the middle of the values lies, wrong with a probability of at most `errorRate`; `null` for too few values. The
 * one thing that it takes for granted: whether a value lies above or below the true middle is a fair coin, drawn for
 * each value by itself, however far away it lies. How far may be anything: heavy tails, drift, bursts.
 *
 * The test ranks the values by their distance to a supposed middle and adds up the ranks of those above it. As many
 * averages of two values (each value also with itself) lie above the middle as that sum tells, so the interval runs
 * from one of the smallest averages to one of the largest. Source: Hollander, Wolfe, Chicken, Nonparametric Statistical
 * Methods, 3rd edition, sections 3.1 and 3.3.
 */
export function signedRankInterval(values: readonly number[], errorRate: number): Interval | null {
  const place = excludedPlaces(values.length, errorRate) - 1;
  if (place < 0) return null;
  const averages = new Float64Array((values.length * (values.length + 1)) / 2);
  let count = 0;
  for (let i = 0; i < values.length; i++) {
    for (let j = 0; j <= i; j++) averages[count++] = (values[i]! + values[j]!) / 2;
  }
  averages.sort();
  return { low: averages[place]!, high: averages[averages.length - 1 - place]! };
}

/**
 * How many of the smallest sums of ranks, and as many of the largest, have a probability of at most `errorRate`
 * together. The probability of each sum is exact: ranks 1 to `count`, each counted or not by a fair coin.
 */
function excludedPlaces(count: number, errorRate: number): number {
  const probability = new Float64Array((count * (count + 1)) / 2 + 1);
  probability[0] = 1;
  for (let rank = 1, largest = 0; rank <= count; rank++) {
    largest += rank;
    for (let sum = largest; sum >= 0; sum--) {
      probability[sum] = (probability[sum]! + (sum < rank ? 0 : probability[sum - rank]!)) / 2;
    }
  }
  let places = 0;
  for (let both = 2 * probability[0]; both <= errorRate; both += 2 * probability[places]!) places++;
  return places;
}
