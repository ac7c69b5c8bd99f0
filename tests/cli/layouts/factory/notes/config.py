class Base:
    PAGE_SIZE = 10


class Production(Base):
    PAGE_SIZE = 50
