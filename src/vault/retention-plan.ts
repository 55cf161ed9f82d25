import { TIER_NAMES, type TierName, type Tiers } from '../catalogue/tiers.ts';

const DAY_MS = 86_400_000;

/** The UTC day, such as `2026-11-24`. */
export function dayOf(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10);
}

/** The first day that is still kept: a text is kept for at least so many days, whenever on its day it came. */
export function firstKeptDay(nowMs: number, retentionDays: number): string {
  return dayOf(nowMs - retentionDays * DAY_MS);
}

/** The first day that each tier still keeps. */
export function firstKeptDays(nowMs: number, tiers: Tiers): Record<TierName, string> {
  return Object.fromEntries(TIER_NAMES.map((tier) => [tier, firstKeptDay(nowMs, tiers[tier].payload_retention_days)])) as Record<TierName, string>;
}

/** The first day that anybody still keeps. */
export function firstDayOfAll(nowMs: number, tiers: Tiers): string {
  return Object.values(firstKeptDays(nowMs, tiers)).reduce((first, day) => (day < first ? day : first));
}

/** Once each UTC day; again on the same day where something was left undone. */
export function isDue(lastCompleteStartMs: number | undefined, nowMs: number): boolean {
  return lastCompleteStartMs === undefined || dayOf(lastCompleteStartMs) < dayOf(nowMs);
}
