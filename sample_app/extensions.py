"""The extensions, made before any application exists; `create_app` joins them to one."""

from __future__ import annotations

from flask_jwt_extended import JWTManager

from flask_prod import ProdKit

prod = ProdKit()
jwt = JWTManager()
