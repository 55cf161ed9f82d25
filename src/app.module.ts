import { Module, type DynamicModule } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import { PassportModule } from '@nestjs/passport';
import { ThrottlerModule } from '@nestjs/throttler';
import type { FastifyRequest } from 'fastify';
import { DataSource } from 'typeorm';
import { AlertsController } from './alerts/alerts.controller.ts';
import { AUDIT_POOL, AuditController, SIGNING_KEYS } from './audit/audit.controller.ts';
import { Refusals } from './audit/refusals.ts';
import { AuthGuard } from './auth/auth.guard.ts';
import { AccessRules } from './auth/access-rules.ts';
import { ApiKeysController } from './auth/api-keys.controller.ts';
import { ApiKeys } from './auth/api-keys.ts';
import { ClientCertificates } from './auth/client-certificates.ts';
import { PoliciesController } from './auth/policies.controller.ts';
import { Policies } from './auth/policies.ts';
import { PolicyTrialsController } from './auth/policy-trials.controller.ts';
import { RecordedDecisions } from './auth/recorded-decisions.ts';
import { RevocationsController } from './auth/revocations.controller.ts';
import { JwtStrategy } from './auth/jwt.strategy.ts';
import { SignIns } from './auth/sign-ins.ts';
import { TokenVerifier } from './auth/token-verifier.ts';
import { VerifiedTokens } from './auth/verified-tokens.ts';
import { Catalogue } from './catalogue/catalogue.ts';
import { TIERS } from './catalogue/tiers.ts';
import { CompletionPipeline } from './completions/completion-pipeline.ts';
import { CostController } from './completions/endpoints/cost.controller.ts';
import { CompletionsController } from './completions/endpoints/completions.controller.ts';
import { GenerationController } from './completions/endpoints/generation.controller.ts';
import { ModelsController } from './completions/endpoints/models.controller.ts';
import { ResponsesController } from './completions/endpoints/responses.controller.ts';
import { StoredResponses } from './completions/stored-responses.ts';
import { BudgetsController } from './cost/budgets.controller.ts';
import { Budgets } from './cost/budgets.ts';
import { SettlementsController } from './cost/settlements.controller.ts';
import { Settlements } from './cost/settlements.ts';
import { PricesController } from './cost/prices.controller.ts';
import { Prices } from './cost/prices.ts';
import { UsageController } from './cost/usage.controller.ts';
import { ENV } from './env.ts';
import type { GatewayParts } from './gateway-parts.ts';
import { OperationsModule } from './health/operations.module.ts';
import { BreakersController } from './provider/breakers.controller.ts';
import { Breakers } from './provider/breakers.ts';
import { DeploymentsController } from './provider/deployments.controller.ts';
import { Deployments } from './provider/deployments.ts';
import { CLOCK } from './shared/clock.ts';
import { SiemSinksController } from './siem/siem-sinks.controller.ts';
import { SiemSinks } from './siem/siem-sinks.ts';
import { ErrorFilter } from './shared/error.filter.ts';
import { LOGGER } from './shared/logger.ts';
import { GcraStorage } from './throttle/gcra-storage.ts';
import { TenantThrottlerGuard } from './throttle/tenant-throttler.guard.ts';
import { TenantDirectory } from './tenants/tenant-directory.ts';
import { TenantsController } from './tenants/tenants.controller.ts';
import { Tenants } from './tenants/tenants.ts';
import { Epochs } from './vault/epochs.ts';
import { PayloadVault } from './vault/payload-vault.ts';
import { PayloadsController } from './vault/payloads.controller.ts';
import { RetentionController } from './vault/retention.controller.ts';
import { Retention } from './vault/retention.ts';

const MINUTE_MS = 60_000;

/**
 * The map of what is served. The parts themselves know nothing of Nest; here they meet their routes.
 *
 * Every request passes, in this order: the auth guard (closed unless declared public), the tenant's throttle, the controller. Whatever any of them
 * throws ends in the error filter.
 */
@Module({})
export class AppModule {
  static forRoot(parts: GatewayParts): DynamicModule {
    const operations = parts.settings.http.managementPort === undefined ? [OperationsModule.forRoot(parts.health, parts.registry)] : [];
    return {
      module: AppModule,
      imports: [
        PassportModule,
        ThrottlerModule.forRoot({
          throttlers: [{
            ttl: MINUTE_MS,
            limit: (context) => parts.tiers[context.switchToHttp().getRequest<FastifyRequest>().principal!.tier].requests_per_minute,
          }],
          storage: new GcraStorage(parts.clock),
        }),
        ...operations,
      ],
      controllers: [CompletionsController, ResponsesController, GenerationController, ModelsController, CostController, TenantsController, BudgetsController, SettlementsController, UsageController, PricesController, AlertsController, PoliciesController, PolicyTrialsController, RevocationsController, ApiKeysController, DeploymentsController, BreakersController, AuditController, SiemSinksController, PayloadsController, RetentionController],
      providers: [
        { provide: ENV, useValue: parts.settings },
        { provide: LOGGER, useValue: parts.logger },
        { provide: CLOCK, useValue: parts.clock },
        { provide: TIERS, useValue: parts.tiers },
        { provide: Catalogue, useValue: parts.catalogue },
        { provide: AccessRules, useValue: parts.rules },
        { provide: ApiKeys, useValue: parts.apiKeys },
        { provide: ClientCertificates, useValue: parts.clientCertificates },
        { provide: Policies, useValue: new Policies(parts.dataSource, parts.rules) },
        { provide: RecordedDecisions, useValue: new RecordedDecisions(parts.dataSource, parts.rules) },
        { provide: CompletionPipeline, useValue: parts.pipeline },
        { provide: StoredResponses, useValue: new StoredResponses(parts.pool) },
        { provide: TenantDirectory, useValue: parts.tenants },
        { provide: TokenVerifier, useValue: parts.verifier },
        { provide: VerifiedTokens, useValue: parts.verifiedTokens },
        { provide: Refusals, useValue: parts.refusals },
        { provide: SignIns, useValue: new SignIns(parts.refusals, parts.clock) },
        { provide: AUDIT_POOL, useValue: parts.pool },
        { provide: SIGNING_KEYS, useValue: parts.signingKeys ?? null },
        { provide: DataSource, useValue: parts.dataSource },
        { provide: Prices, useValue: parts.prices },
        { provide: Budgets, useValue: new Budgets(parts.dataSource) },
        { provide: Settlements, useValue: new Settlements(parts.dataSource) },
        { provide: Deployments, useValue: parts.deployments },
        { provide: Breakers, useValue: parts.breakers },
        { provide: SiemSinks, useValue: parts.siemSinks },
        { provide: PayloadVault, useValue: parts.vault.payloadVault },
        { provide: Epochs, useValue: parts.vault.epochs },
        { provide: Retention, useValue: parts.vault.retention },
        { provide: Tenants, useValue: new Tenants(parts.dataSource) },
        JwtStrategy,
        { provide: APP_GUARD, useClass: AuthGuard },
        { provide: APP_GUARD, useClass: TenantThrottlerGuard },
        { provide: APP_FILTER, useClass: ErrorFilter },
      ],
    };
  }
}
