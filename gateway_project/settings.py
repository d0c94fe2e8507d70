"""Every setting of Gatehouse, from the environment. docs/configuration.md explains each; a test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

from django.templatetags.static import static
from django.urls import reverse_lazy

from gateway_project import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.text("DATA_DIR", str(BASE_DIR / "data"))).resolve()

DEBUG = env.flag("DEBUG", False)
DATABASES = {"default": env.database("DATABASE_URL", f"sqlite:///{DATA_DIR / 'gatehouse.sqlite3'}")}
USES_SQLITE = str(DATABASES["default"]["ENGINE"]).endswith("sqlite3")
# Local: one machine, nothing configured. Only then are secrets made and cookies sent without TLS.
LOCAL = env.flag("GATEHOUSE_LOCAL", DEBUG or USES_SQLITE)

SECRET_KEY = env.secret("SECRET_KEY", DATA_DIR, LOCAL)
# Newest first. The first one signs new keys; the others still verify keys made under them.
KEY_PEPPERS = [p.strip() for p in env.secret("KEY_PEPPERS", DATA_DIR, LOCAL).split(",") if p.strip()]
# Newest first. The first one encrypts; the others still decrypt what was written under them.
ENCRYPTION_KEYS = [k.strip() for k in env.secret("ENCRYPTION_KEYS", DATA_DIR, LOCAL).split(",") if k.strip()]

ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES")
CORS_ALLOWED_ORIGINS = env.words("CORS_ALLOWED_ORIGINS")
REDIS_URL = env.text("REDIS_URL")
PUBLIC_URL = env.web_address("PUBLIC_URL")

# --- the data plane -------------------------------------------------------------------------------------------------
MAX_BODY_BYTES = int(env.number("MAX_BODY_BYTES", 10 * 1024 * 1024, 1024))
MAX_REPLY_BYTES = int(env.number("MAX_REPLY_BYTES", 32 * 1024 * 1024, 1024))
BODY_TIMEOUT_S = env.number("BODY_TIMEOUT_S", 30, 0.1)
HEADER_TIMEOUT_S = env.number("HEADER_TIMEOUT_S", 10, 0.1)
MAX_HEADER_BYTES = int(env.number("MAX_HEADER_BYTES", 32 * 1024, 1024))
CLIENT_WRITE_TIMEOUT_S = env.number("CLIENT_WRITE_TIMEOUT_S", 30, 0.1)
DETACHED_LIMIT_S = env.number("DETACHED_LIMIT_S", 60, 0)
GRACEFUL_TIMEOUT_S = int(env.number("GRACEFUL_TIMEOUT_S", 30, 0))
KEY_CACHE_SIZE = int(env.number("KEY_CACHE_SIZE", 10_000, 1))
METRICS_TOKEN = env.text("METRICS_TOKEN")

# --- what is kept ---------------------------------------------------------------------------------------------------
FINDINGS_RETENTION_DAYS = int(env.number("FINDINGS_RETENTION_DAYS", 90, 1))
ALERTS_RETENTION_DAYS = int(env.number("ALERTS_RETENTION_DAYS", 365, 1))
AUDIT_RETENTION_DAYS = int(env.number("AUDIT_RETENTION_DAYS", 0, 0))  # 0: for ever
AUDIT_ANCHOR_FILE = env.text("AUDIT_ANCHOR_FILE", str(DATA_DIR / "audit-anchors.jsonl"))
AUDIT_ANCHOR_URL = env.web_address("AUDIT_ANCHOR_URL")
AUDIT_ANCHOR_PRIVATE_NETWORK = env.flag("AUDIT_ANCHOR_PRIVATE_NETWORK", False)

# --- Django ---------------------------------------------------------------------------------------------------------
ROOT_URLCONF = "gateway_project.urls"
ASGI_APPLICATION = "gateway_project.asgi.application"
WSGI_APPLICATION = "gateway_project.wsgi.application"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGIN_URL = reverse_lazy("account_login")
LOGIN_REDIRECT_URL = "/"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.socialaccount.providers.saml",
    "allauth.mfa",
    "gateway_project",
    "accounts",
    "accounts.audit",
    "accounts.requests",
    "accounts.sso",
    "accounts.scim",
    "accounts.tokens",
    "usage",
    "policies",
    "proxy",
]

MIDDLEWARE = [
    # Outermost: health checks come by IP address and without TLS.
    "gateway_project.health.probes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway_project.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "gateway_project.private.pages",
    "accounts.audit.actors.of_request",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.sso.local.require_second_factor",
    "accounts.requests.terms.TermsMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "accounts.portal.context.portal",
            ],
        },
    }
]

if USES_SQLITE:
    DATABASES["default"]["OPTIONS"] = {
        # WAL with IMMEDIATE is the pair that never answers "database is locked" (docs/adr/0005).
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        "init_command": (
            "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA mmap_size=134217728;"
            "PRAGMA journal_size_limit=27103364;PRAGMA cache_size=-4000;"
        ),
    }
    # In-memory test databases cannot be shared by the threads of the data plane.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    DATA_DIR.mkdir(parents=True, exist_ok=True)
else:
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 3,
        # A server that is gone without a word must not hold a thread for many minutes.
        "tcp_user_timeout": 10_000,  # milliseconds
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
# Under ASGI each request has a thread of its own, so a kept connection is a leaked one.
DATABASES["default"]["CONN_MAX_AGE"] = 0

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# The page of a policy has some twenty fields for each rule.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000

LANGUAGE_CODE = "en"
TIME_ZONE = env.text("TIME_ZONE", "UTC")
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = Path(env.text("STATIC_ROOT", str(DATA_DIR / "static")))
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns when it is not there
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}

# --- browser security -----------------------------------------------------------------------------------------------
HTTPS = env.flag("HTTPS", not LOCAL)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

# --- sign-in --------------------------------------------------------------------------------------------------------
LOCAL_ADMIN_TOTP = env.choice("LOCAL_ADMIN_TOTP", "optional" if LOCAL else "required", ("optional", "required"))
SSO_SESSION_HOURS = env.number("SSO_SESSION_HOURS", 12, 0.1)
KEYS_LAPSE_DAYS = int(env.number("KEYS_LAPSE_DAYS", 0, 0))  # 0: never
# One IdP of each kind may be set up here; any number of them in the admin.
OIDC = {
    "name": env.text("OIDC_NAME", "Single sign-on"),
    "discovery_url": env.text("OIDC_DISCOVERY_URL"),
    "client_id": env.text("OIDC_CLIENT_ID"),
    "client_secret": env.text("OIDC_CLIENT_SECRET"),
    "scopes": env.text("OIDC_SCOPES", "openid profile email"),
    "group_names": env.text("OIDC_GROUPS_CLAIM"),
}
SAML = {
    "name": env.text("SAML_NAME", "Single sign-on"),
    "metadata_url": env.text("SAML_METADATA_URL"),
    "metadata_xml": env.text("SAML_METADATA"),
    "idp_entity_id": env.text("SAML_ENTITY_ID"),
    "subject_names": env.text("SAML_SUBJECT_ATTRIBUTE"),
    "group_names": env.text("SAML_GROUPS_ATTRIBUTE"),
}
ACCOUNT_ADAPTER = "accounts.sso.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_REDIRECT_URL = LOGIN_URL
ACCOUNT_USER_DISPLAY = "django.contrib.auth.models.AbstractBaseUser.get_username"
SOCIALACCOUNT_ADAPTER = "accounts.sso.adapters.SocialAdapter"
SOCIALACCOUNT_EMAIL_REQUIRED = False
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {"provider_class": "accounts.sso.oidc.OidcProvider"},
    "saml": {"provider_class": "accounts.sso.saml.SamlProvider"},
}
MFA_ADAPTER = "accounts.sso.adapters.MfaAdapter"
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_TOLERANCE = 1
if REDIS_URL:
    CACHES = {
        "default": {"BACKEND": "gateway_project.cache.RedisOrMemory", "LOCATION": REDIS_URL, "KEY_PREFIX": "cache"},
    }

# --- Celery ---------------------------------------------------------------------------------------------------------
CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", REDIS_URL or "filesystem://localhost")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
if CELERY_BROKER_URL.startswith("filesystem://"):
    BROKER_DIR = DATA_DIR / "broker"
    for folder in ("messages", "processed", "control"):
        (BROKER_DIR / folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # One folder both ways: what is sent is what is received.
        "data_folder_in": str(BROKER_DIR / "messages"),
        "data_folder_out": str(BROKER_DIR / "messages"),
        "processed_folder": str(BROKER_DIR / "processed"),
        "control_folder": str(BROKER_DIR / "control"),
        "store_processed": False,
    }
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    # Expires: what a stopped worker did not do must not pile up for it.
    name: {"task": task, "schedule": float(every_s), "options": {"expires": every_s}}
    for name, task, every_s in (
        ("roll up usage", "usage.tasks.roll_up", 20),
        # Each time for a minute at most, so oftener than once a day.
        ("delete old usage", "usage.tasks.prune", 3600),
        ("moderate what waits", "policies.tasks.moderate_pending", 5),
        ("watch for alerts", "usage.alert_tasks.check", 30),
        ("send alerts", "usage.alert_tasks.send", 10),
        ("forget old alerts", "usage.alert_tasks.purge", 600),
        ("anchor the audit trail", "accounts.audit.tasks.write_anchor", 3600),
        ("delete old audit events", "accounts.audit.tasks.prune", 3600),
        ("let keys lapse", "accounts.sso.tasks.lapse_keys", 600),
        ("forget old sign-ins", "accounts.sso.tasks.forget_old", 3600),
        ("send mail about requests", "accounts.requests.tasks.send_mail", 10),
        ("end courses and old requests", "accounts.requests.tasks.tidy", 30),
        ("delete what the management API kept", "accounts.tokens.tasks.purge", 600),
        ("purge what policies kept", "policies.tasks.purge", 600),
    )
}
# Policies may not import the data plane, which knows the providers and the way out: they find it here at run time.
MODERATION_CLIENT = "proxy.moderation.ask_now"

# --- the management API ---------------------------------------------------------------------------------------------
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "gateway_project.api.schema.Schema"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Gatehouse management API",
    "DESCRIPTION": "What the admin can do, for programs. See docs/api.md.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "PREPROCESSING_HOOKS": ["gateway_project.api.schema.only_ours"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {},
}

# --- e-mail ---------------------------------------------------------------------------------------------------------
EMAIL_IS_SET_UP = bool(env.text("EMAIL_URL"))
if EMAIL_IS_SET_UP:
    vars().update(env.email("EMAIL_URL"))
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
EMAIL_TIMEOUT = 10  # seconds, of each step
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("EMAIL_FROM", "gatehouse@localhost")

# --- logs: JSON lines on stdout, the request id in each ------------------------------------------------------------
LOG_LEVEL = env.text("LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "gateway_project.logs.JsonFormatter"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": sys.stdout, "formatter": "json"}},
    "root": {"handlers": ["stdout"], "level": LOG_LEVEL},
    "loggers": {
        "uvicorn.access": {"level": "WARNING"},
        "django.server": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
    },
}

# --- the admin's looks ----------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "Gatehouse",
    "SITE_HEADER": "Gatehouse",
    "SITE_SUBHEADER": "LLM gateway",
    "SITE_SYMBOL": "gate",
    "SITE_URL": "/",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("admin/favicon.svg")},
    ],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "gateway_project.front_page.fill",
    "STYLES": [lambda request: static("admin/gatehouse.css")],
    "SCRIPTS": [lambda request: static("admin/gatehouse.js")],
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "navigation": "gateway_project.navigation.sections",
    },
    "ACCOUNT": {"navigation": [{"title": "Second factor", "link": reverse_lazy("mfa_index")}]},
    "COMMAND": {"search_callback": "gateway_project.navigation.search"},
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(58.5% .233 277.117)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        },
    },
}
